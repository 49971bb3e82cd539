//! Texts as a terminal may be shown them.

use std::fmt::Write as _;

use ratatui::text::Span;

/// What stands where nothing is known.
pub(super) const UNKNOWN: &str = "-";
/// What a text ends with of which something was left out.
const CUT: char = '~';

/// A text in which nothing moves the cursor, changes a colour or turns the direction of what follows.
/// Names of clients come from whoever connects, and a terminal obeys what is printed on it.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            // Marks and overrides of direction, and what takes no room on the screen.
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' => {
                escape(char, &mut plain);
            }
            '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' => {
                escape(char, &mut plain);
            }
            '\u{e0000}'..='\u{e007f}' => escape(char, &mut plain),
            char if char.is_control() => escape(char, &mut plain),
            char => plain.push(char),
        }
    }
    plain
}

fn escape(char: char, plain: &mut String) {
    // Writing to a string does not fail.
    let _ = match u32::from(char) {
        code @ 0..0x100 => write!(plain, "\\x{code:02x}"),
        code => write!(plain, "\\u{{{code:x}}}"),
    };
}

/// How many columns a text takes.
pub(super) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// A text in at most so many columns; a sign at its end tells that there was more.
pub(super) fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let (mut kept, mut taken) = (String::new(), 0);
    for char in text.chars() {
        let wide = width(char.encode_utf8(&mut [0; 4]));
        if taken + wide + 1 > columns {
            break;
        }
        kept.push(char);
        taken += wide;
    }
    if columns > 0 {
        kept.push(CUT);
    }
    kept
}

/// A short time with two digits that count.
pub(super) fn short_time(seconds: f64) -> String {
    let micros = seconds * 1e6;
    match micros {
        ..1e3 => format!("{micros:.0}us"),
        ..1e4 => format!("{:.1}ms", micros / 1e3),
        ..1e6 => format!("{:.0}ms", micros / 1e3),
        ..1e7 => format!("{seconds:.1}s"),
        _ => format!("{seconds:.0}s"),
    }
}

/// A rate per second: small ones to a tenth.
pub(super) fn rate(per_second: f64) -> String {
    match per_second {
        ..99.95 => format!("{per_second:.1}"),
        _ => format!("{per_second:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left_in_a_text() {
        for (text, shown) in [
            ("claude-code 2.1", "claude-code 2.1"),
            ("\x1b[2Jgone", "\\x1b[2Jgone"),
            ("a\r\nb\tc\x07", "a\\x0d\\x0ab\\x09c\\x07"),
            ("c1 \u{9b}31m", "c1 \\x9b31m"),
            ("\u{202e}gpj.exe", "\\u{202e}gpj.exe"),
            ("a\u{200b}b\u{2066}c", "a\\u{200b}b\\u{2066}c"),
            ("Grüße 漢字", "Grüße 漢字"),
        ] {
            assert_eq!(plain(text), shown);
        }
    }

    #[test]
    fn a_text_that_is_cut_keeps_to_its_columns_and_shows_that_it_was() {
        for (text, columns, shown) in [
            ("weather/w1", 10, "weather/w1"),
            ("weather/w1", 9, "weather/~"),
            ("漢字漢字", 8, "漢字漢字"),
            ("漢字漢字", 6, "漢字~"),
            ("ab", 1, "~"),
            ("ab", 0, ""),
        ] {
            let got = cut(text, columns);
            assert_eq!(got, shown);
            assert!(width(&got) <= columns);
        }
    }

    #[test]
    fn times_and_rates_are_told_shortly() {
        for (seconds, text) in [
            (0.0, "0us"),
            (0.000_250, "250us"),
            (0.001_25, "1.2ms"),
            (0.0451, "45ms"),
            (1.26, "1.3s"),
            (61.0, "61s"),
        ] {
            assert_eq!(short_time(seconds), text);
        }
        assert_eq!(
            (rate(0.0), rate(12.34), rate(1234.5)),
            ("0.0".into(), "12.3".into(), "1234".into())
        );
    }
}
