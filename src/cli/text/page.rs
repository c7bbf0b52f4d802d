//! Text with tones, laid out for the terminal that shows it.
//!
//! A tone becomes a color only on the way out, so that every piece is escaped first and no foreign
//! text can bring terminal sequences of its own.

use std::io::IsTerminal as _;

use anstyle::{AnsiColor, Style};

/// The meaning of a piece of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Text like any other.
    Plain,
    /// The main thing of a line.
    Strong,
    /// It fits.
    Good,
    /// It is tight, or needs attention.
    Warning,
    /// It does not fit.
    Bad,
    /// Secondary.
    Dim,
}

impl Tone {
    /// Returns the tone's style on a terminal.
    pub(in crate::cli) fn style(self) -> Style {
        let color = |color: AnsiColor| Style::new().fg_color(Some(color.into()));
        match self {
            Self::Plain => Style::new(),
            Self::Strong => Style::new().bold(),
            Self::Good => color(AnsiColor::Green).bold(),
            Self::Warning => color(AnsiColor::Yellow).bold(),
            Self::Bad => color(AnsiColor::Red).bold(),
            Self::Dim => Style::new().dimmed(),
        }
    }
}

/// Lines of toned text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pieces: Vec<(Tone, String)>,
}

impl Page {
    /// Appends `text` to the last line.
    pub fn push(&mut self, tone: Tone, text: impl Into<String>) {
        let text = text.into();
        if !text.is_empty() {
            self.pieces.push((tone, text));
        }
    }

    /// Appends a line of plain text.
    pub fn line(&mut self, text: impl Into<String>) {
        self.push(Tone::Plain, text);
        self.end_line();
    }

    /// Appends plain text of several lines.
    pub fn push_text(&mut self, text: impl Into<String>) {
        self.push(Tone::Plain, text);
    }

    /// Ends the last line.
    pub fn end_line(&mut self) {
        self.push(Tone::Plain, "\n");
    }

    /// Iterates over the pieces in order. A line break is part of a piece.
    pub fn pieces(&self) -> impl Iterator<Item = (Tone, &str)> {
        self.pieces.iter().map(|(tone, text)| (*tone, &**text))
    }
}

/// A page of plain text.
impl From<String> for Page {
    fn from(text: String) -> Self {
        Self {
            pieces: vec![(Tone::Plain, text)],
        }
    }
}

/// The characters that a page may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signs {
    /// Block elements and other signs of Unicode.
    Unicode,
    /// ASCII, for pipes and for locales without UTF-8.
    Ascii,
}

impl Signs {
    /// Returns `unicode` or its replacement.
    pub(super) fn choose<T>(self, unicode: T, ascii: T) -> T {
        match self {
            Self::Unicode => unicode,
            Self::Ascii => ascii,
        }
    }
}

/// The room for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLayout {
    /// The columns of a line.
    pub columns: usize,
    /// The characters to use.
    pub signs: Signs,
}

impl PageLayout {
    /// Returns the layout for standard output.
    ///
    /// A valid `COLUMNS` sets the width. Otherwise it is the terminal's, or 80 columns in a pipe.
    pub fn of_standard_output() -> Self {
        let stdout = std::io::stdout();
        let terminal = terminal_size::terminal_size_of(&stdout).map(|(width, _)| width.0);
        let columns = std::env::var("COLUMNS")
            .ok()
            .and_then(|columns| columns.parse().ok())
            .filter(|columns| *columns > 0)
            .or(terminal)
            .map_or(80, usize::from);

        let signs = if stdout.is_terminal() && is_utf8(locale().as_deref()) {
            Signs::Unicode
        } else {
            Signs::Ascii
        };

        Self {
            columns: columns.clamp(40, 160),
            signs,
        }
    }
}

/// Returns the locale of characters, by POSIX's order of precedence.
fn locale() -> Option<String> {
    ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

/// Whether the locale's character set is UTF-8.
fn is_utf8(locale: Option<&str>) -> bool {
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locale_names_character_set() {
        for (locale, expected) in [
            (Some("en_US.UTF-8"), true),
            (Some("C.utf8"), true),
            (Some("C"), false),
            (Some("de_DE.ISO-8859-1"), false),
            (None, false),
        ] {
            assert_eq!(is_utf8(locale), expected, "{locale:?}");
        }
    }
}
