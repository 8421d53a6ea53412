//! The colours of the moving display, as `BUILDKIT_COLORS` sets them.

use console::Style;

/// What ended steps are painted with.
#[derive(Debug, Clone)]
pub(crate) struct Palette {
    /// Done, or not needed.
    pub(super) run: Style,
    /// Stopped.
    pub(super) cancel: Style,
    /// Failed.
    pub(super) error: Style,
}

impl Default for Palette {
    fn default() -> Self {
        Self { run: Style::new().blue(), cancel: Style::new().yellow(), error: Style::new().red() }
    }
}

impl Palette {
    /// Reads `run=green:cancel=255,165,0:error=red`. What is not understood leaves the default: a wrong colour is no
    /// reason not to build.
    pub(crate) fn parse(text: &str) -> Self {
        let mut palette = Self::default();
        for (name, value) in text.split(':').filter_map(|field| field.split_once('=')) {
            let Some(style) = style(value) else { continue };
            match name.to_ascii_lowercase().as_str() {
                "run" => palette.run = style,
                "cancel" => palette.cancel = style,
                "error" => palette.error = style,
                _ => {}
            }
        }
        palette
    }
}

/// A colour by name, or by its parts of red, green and blue.
fn style(value: &str) -> Option<Style> {
    let plain = Style::new();
    Some(match value.to_ascii_lowercase().as_str() {
        "black" => plain.black(),
        "blue" => plain.blue(),
        "cyan" => plain.cyan(),
        "green" => plain.green(),
        "magenta" => plain.magenta(),
        "red" => plain.red(),
        "white" => plain.white(),
        "yellow" => plain.yellow(),
        rgb => {
            let mut parts = rgb.split(',').map(|part| part.parse::<u8>().ok());
            let color = (parts.next()??, parts.next()??, parts.next()??);
            if parts.next().is_some() {
                return None;
            }
            plain.true_color(color.0, color.1, color.2)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_read_as_buildkit_reads_them() {
        let shown = |style: &Style| style.apply_to("x").force_styling(true).to_string();
        let palette = Palette::parse("run=green:ERROR=255,165,0:warning=red:cancel=nosuch:junk");
        assert_eq!(shown(&palette.run), "\u{1b}[32mx\u{1b}[0m");
        assert_eq!(shown(&palette.error), "\u{1b}[38;2;255;165;0mx\u{1b}[0m");
        assert_eq!(shown(&palette.cancel), shown(&Palette::default().cancel));
        for value in ["", "1,2", "1,2,3,4", "1,2,256"] {
            assert!(style(value).is_none(), "{value}");
        }
    }
}
