use serde_json::json;

use super::{Template, list};

fn value() -> serde_json::Value {
    json!({
        "Name": "app", "Id": "0123456789abcdef", "Count": 3, "Running": true, "Empty": "", "Nil": null,
        "State": { "Status": "running", "Pid": 7 },
        "Labels": { "a.b": "c", "x": "y" },
        "Args": ["-c", "true"],
        "Mounts": [{ "Source": "/a", "RW": true }, { "Source": "/b", "RW": false }],
    })
}

fn render(template: &str) -> String {
    Template::parse(template)
        .and_then(|template| template.render(&value()))
        .unwrap_or_else(|error| error.to_string())
}

#[test]
fn templates_mean_what_go_means() {
    let cases = [
        ("plain", "plain"),
        ("{{.Name}}-{{ .Count }}", "app-3"),
        ("{{.State.Status}}", "running"),
        ("{{json .State}}", r#"{"Pid":7,"Status":"running"}"#),
        ("{{.Args}} {{.Labels}}", "[-c true] map[a.b:c x:y]"),
        ("{{upper .Name}} {{.Name | upper | lower}} {{title .Name}}", "APP app App"),
        ("{{truncate .Id 4}} {{slice .Id 2 5}} {{len .Args}}", "0123 234 2"),
        ("{{join .Args \", \"}} {{split \"a,b\" \",\"}}", "-c, true [a b]"),
        ("{{index .Args 1}} {{index .Labels \"a.b\"}} {{.Labels.x}} {{.Labels \"x\"}}", "true c y y"),
        ("{{.Labels.nosuch}}", "<no value>"),
        ("{{if .Running}}yes{{else}}no{{end}}", "yes"),
        ("{{if .Empty}}1{{else if .Nil}}2{{else if eq .Count 3}}3{{else}}4{{end}}!", "3!"),
        ("{{range .Mounts}}{{.Source}}:{{.RW}} {{end}}", "/a:true /b:false "),
        ("{{range $i, $m := .Mounts}}{{$i}}={{$m.Source}};{{end}}", "0=/a;1=/b;"),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}} {{end}}", "a.b=c x=y "),
        ("{{range .Nil}}x{{else}}none{{end}}", "none"),
        ("{{with .State}}{{.Pid}}{{$.Name}}{{end}}", "7app"),
        ("{{$n := .Name}}{{$n}}{{println $n 1}}", "appapp 1\n"),
        ("{{(index .Mounts 0).Source}}", "/a"),
        ("{{printf \"%s=%d %q\" .Name .Count .Name}}", "app=3 \"app\""),
        ("{{and .Running (gt .Count 2)}} {{or .Empty \"x\"}} {{not .Running}}", "true x false"),
        ("a {{- /* no */ -}} b", "ab"),
        ("a {{- .Name -}} b", "aappb"),
        ("{{\"}}\"}} {{`raw`}} {{pad .Name 1 2}}|", "}} raw  app  |"),
    ];
    for (template, expected) in cases {
        assert_eq!(render(template), expected, "{template}");
    }
}

#[test]
fn what_is_missing_has_the_zero_value_of_its_type() {
    let value = json!({ "State": { "Pid": 7 }, "Args": null, "Labels": null, "Name": "app" });
    let zeros = json!({
        "State": { "Health": null, "Error": "", "Paused": false }, "Args": [], "Labels": {}, "Name": "", "Size": 0,
    });
    let render = |template: &str| Template::parse(template).unwrap().render_typed(&value, &zeros);
    let cases = [
        ("{{.State.Health}} {{json .State.Health}}", "<nil> null"),
        ("{{.State.Error}}|{{json .State.Error}}|{{.State.Paused}}|{{.Size}}", "|\"\"|false|0"),
        ("{{.Args}} {{json .Args}} {{len .Args}} {{join .Args \",\"}}", "[] null 0 "),
        ("{{.Labels}} {{json .Labels}} {{.Labels.x}} {{index .Labels \"x\"}}", "map[] null <no value> "),
        ("{{range $key, $_ := .Labels}}{{$key}}{{else}}none{{end}}", "none"),
        ("{{if .State.Health}}1{{else if .Labels.x}}2{{else}}3{{end}}", "3"),
        (
            "{{with .State}}{{.Error}}{{.Pid}}{{end}}{{$s := .State}}{{$s.Health}}{{(.State).Paused}}",
            "7<nil>false",
        ),
        ("{{json .State}} {{.Name}}", "{\"Pid\":7} app"),
    ];
    for (template, expected) in cases {
        assert_eq!(render(template).unwrap(), expected, "{template}");
    }
    for template in ["{{.State.Nosuch}}", "{{.State.Health.Status}}", "{{.Nosuch}}", "{{.Error}}"] {
        render(template).unwrap_err();
    }
}

#[test]
fn mistakes_are_errors_never_panics() {
    let cases = [
        "{{.Nosuch}}",
        "{{",
        "{{.Name",
        "{{end}}",
        "{{if .Name}}",
        "{{nosuch .Name}}",
        "{{index .Args 9}}",
        "{{(.Name}}",
        "{{.Name)}}",
        "{{$x}}",
        "{{\"a}}",
        "{{.Name |}}",
        "{{len}}",
        "{{index}}",
        "{{printf}}",
        "{{range .Name}}{{end}}",
        "{{slice .Name 9}}",
        "{{.Name.First}}",
        "{{else}}",
        "{{1x}}",
        "{{eq}}",
        "{{slice .Name 2 1}}",
        "{{#}}",
    ];
    for template in cases {
        let shown = render(template);
        assert!(shown.starts_with("template parsing error: ") || template == "{{eq}}", "{template}: {shown}");
    }
    let deep = format!("{}{}", "{{if .Name}}".repeat(1000), "{{end}}".repeat(1000));
    assert!(render(&deep).contains("nested too deep"));
    let deep = format!("{{{{{}.Name{}}}}}", "(".repeat(1000), ")".repeat(1000));
    assert!(render(&deep).contains("nested too deep"));
}

#[test]
fn lists_have_the_form_that_is_asked_for() {
    let headings = json!({ "ID": "CONTAINER ID", "Names": "NAMES" });
    let rows = [json!({ "ID": "0", "Names": "app" }), json!({ "ID": "12", "Names": "b" })];
    let cases = [
        ("{{.ID}}", "0\n12\n"),
        ("json", "{\"ID\":\"0\",\"Names\":\"app\"}\n{\"ID\":\"12\",\"Names\":\"b\"}\n"),
        ("table {{.ID}}\\t{{.Names}}", "CONTAINER ID   NAMES\n0              app\n12             b\n"),
    ];
    for (format, expected) in cases {
        assert_eq!(list(format, &headings, &rows).unwrap(), expected, "{format}");
    }
}
