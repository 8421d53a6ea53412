//! The moving picture, as lines and through a terminal in memory.

use std::time::Duration;

use indicatif::{InMemoryTerm, ProgressDrawTarget};
use insta::assert_snapshot;
use rbuild_llb::VertexId;
use rbuild_solver::progress::Event;

use super::{Frame, Tty, picture};
use crate::progress::Display;
use crate::progress::Palette;
use crate::progress::board::Board;
use crate::progress::testing::{cached, completed, output, planned, started, transfer};

const PLAIN: Frame<'_> = Frame { height: 24, width: 60, palette: None };

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn board_of(events: impl IntoIterator<Item = (u64, Event)>) -> Board {
    let mut board = Board::default();
    for (at, event) in events {
        board.apply(event, millis(at));
    }
    board
}

fn two_running() -> Board {
    board_of([
        (
            0,
            planned(&[
                "[1/3] FROM busybox",
                "[2/3] RUN make with a name that is far too long for one line",
                "[3/3] RUN b",
            ]),
        ),
        (0, cached(0)),
        (100, started(1)),
        (200, started(2)),
        (300, output(1, b"one\ntwo\n\x1b[2Jthree\tand a tail that is far too long to be shown whole\n")),
        (300, transfer(2, "sha256:5a16", 10, Some(1_000))),
    ])
}

#[test]
fn running_steps_show_time_and_tail() {
    assert_snapshot!(picture(&two_running(), millis(3_400), PLAIN).join("\n"), @r#"
    [+] Building 3.4s (1/3)
     => [2/3] RUN make with a name that is far too long fo… 3.3s
     => => # one
     => => # two
     => => # three    and a tail that is far too long to be sho…
     => [3/3] RUN b                                         3.2s
     => => # sha256:5a16 10B / 1.00kB
    "#);
}

#[test]
fn the_picture_is_never_higher_or_wider_than_the_terminal() {
    let palette = Palette::default();
    let names: Vec<String> = (0..30).map(|i| format!("RUN {i} 長い名前")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let many = board_of([(0, planned(&names))].into_iter().chain((0..30).map(|i| (0, started(i)))));
    for board in [&two_running(), &many, &Board::default()] {
        for height in 0..40 {
            for width in 1..30 {
                let lines = picture(board, millis(1), Frame { height, width, palette: Some(&palette) });
                assert!(lines.len() < height.max(2), "{height} {lines:?}");
                assert!(
                    lines.iter().all(|line| console::measure_text_width(line) <= width),
                    "{width} {lines:?}"
                );
            }
        }
    }
    let frame = Frame { height: 6, width: 20, palette: None };
    assert_snapshot!(picture(&many, millis(1), frame).join("\n"), @r#"
    [+] Building 0.0s (…
     => RUN 0 長い… 0.0s
     => RUN 1 長い… 0.0s
     => RUN 2 長い… 0.0s
     => … and 27 more
    "#);
}

#[test]
fn colours_are_there_only_when_asked_for() {
    let palette = Palette::default();
    for palette in [Some(&palette), None] {
        let picture = picture(&two_running(), millis(1), Frame { palette, ..PLAIN }).concat();
        assert_eq!(picture.contains('\u{1b}'), palette.is_some());
    }
}

#[test]
fn ended_steps_scroll_up_and_the_screen_is_left_clean() {
    let term = InMemoryTerm::new(8, 61);
    let target = ProgressDrawTarget::term_like_with_hz(Box::new(term.clone()), u8::MAX);
    let mut display = Display::new(Box::new(Tty::new(target, Box::new(|| (8, 61)), None)));
    let events = [
        (0, planned(&["[1/3] FROM busybox", "[2/3] RUN make", "[3/3] RUN long"])),
        (10, cached(0)),
        (10, started(1)),
        (20, started(2)),
        (300, output(2, b"working\n")),
        (1_500, completed(1)),
    ];
    for (at, event) in events {
        display.handle(event, millis(at));
    }
    display.tick(millis(1_600));
    assert_snapshot!(term.contents(), @r#"
     => CACHED [1/3] FROM busybox                           0.0s
     => [2/3] RUN make                                      1.5s
    [+] Building 1.6s (2/3)
     => [3/3] RUN long                                      1.6s
     => => # working
    "#);
    display.handle(Event::Cancelled { vertex: VertexId(2) }, millis(2_000));
    display.finish(millis(2_000));
    assert_snapshot!(term.contents(), @r#"
     => CACHED [1/3] FROM busybox                           0.0s
     => [2/3] RUN make                                      1.5s
     => CANCELED [3/3] RUN long                             0.0s
    [+] Building 2.0s (3/3)
    "#);
}

#[test]
fn nothing_done_is_nothing_drawn() {
    let term = InMemoryTerm::new(8, 61);
    let target = ProgressDrawTarget::term_like_with_hz(Box::new(term.clone()), u8::MAX);
    let mut display = Display::new(Box::new(Tty::new(target, Box::new(|| (8, 61)), None)));
    display.tick(millis(100));
    display.finish(millis(200));
    assert_eq!(term.contents(), "");
}
