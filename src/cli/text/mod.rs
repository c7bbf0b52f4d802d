//! Answers as text: as wide as the terminal, and no meaning in color alone.

pub mod answer;
pub mod bar;
mod details;
mod device_bars;
pub mod event;
mod figure;
mod files;
pub mod gpus;
mod headline;
mod launch;
pub mod lease;
pub mod page;
pub mod problem;
mod quiet;
mod suggestion;
mod summary;
pub mod topology;

use hf_mem_core::bytes::Bytes;

/// Returns bytes as a short figure that aligns in columns: `12.34 GiB`.
pub fn size(bytes: u64) -> String {
    Bytes::new(bytes).to_string()
}

/// Returns a number in groups of three digits: `131,072`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }

    out
}

/// Returns a count with its noun: `1 sequence`, `3 sequences`.
pub fn plural(count: u64, thing: &str) -> String {
    format!(
        "{} {thing}{}",
        grouped(count),
        if count == 1 { "" } else { "s" }
    )
}

/// The columns of a line, for pages that have one width.
pub const WIDTH: usize = 80;

/// Wraps `text`, which starts in column `start`, at [`WIDTH`].
///
/// Further lines are indented by `indent` spaces.
pub fn wrapped(text: &str, start: usize, indent: usize) -> String {
    wrapped_to(WIDTH, text, start, indent)
}

/// Wraps `text`, which starts in column `start`, at `columns`.
///
/// Further lines are indented by `indent` spaces.
pub fn wrapped_to(columns: usize, text: &str, start: usize, indent: usize) -> String {
    let mut out = String::new();
    let mut column = start;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if !out.is_empty() && column + 1 + length > columns {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            column = indent;
        } else if !out.is_empty() {
            out.push(' ');
            column += 1;
        }

        out.push_str(word);
        column += length;
    }

    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(131_072), "131,072");
        assert_eq!(grouped(1_000_000), "1,000,000");
    }

    #[test]
    fn wrapped_lines_keep_width() {
        let text = wrapped(&"word ".repeat(60), 30, 4);
        assert!(
            text.lines()
                .skip(1)
                .all(|line| line.chars().count() <= WIDTH && line.starts_with("    word")),
            "{text}"
        );

        assert_eq!(text.lines().next().map(str::len), Some(49));
    }
}
