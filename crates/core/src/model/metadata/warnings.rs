//! Bounds on the warnings that a model keeps, because every answer about the model repeats them.

/// Maximum number of warnings.
const MAX_WARNINGS: usize = 64;
/// Maximum length of one warning. Longer ones are cut.
const MAX_WARNING_BYTES: usize = 1 << 10;
/// Maximum length of all warnings together.
const MAX_ALL_BYTES: usize = 16 << 10;

/// Returns the first of `warnings`, cut to the maximum length.
///
/// A last line counts the warnings that were left out.
pub(super) fn bounded(warnings: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut warnings = warnings.into_iter().map(shortened).peekable();
    let (mut kept, mut bytes) = (Vec::new(), 0);
    while let Some(warning) = warnings
        .next_if(|warning| kept.len() < MAX_WARNINGS && bytes + warning.len() <= MAX_ALL_BYTES)
    {
        bytes += warning.len();
        kept.push(warning);
    }

    let more = warnings.count();
    if more > 0 {
        kept.push(format!("and {more} more warnings for this model"));
    }

    kept
}

/// Returns `text`, cut to the maximum length of a warning.
pub(super) fn shortened(mut text: String) -> String {
    if text.len() > MAX_WARNING_BYTES {
        let end = (0..=MAX_WARNING_BYTES)
            .rev()
            .find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or_default());
        text.push_str("...");
        text.shrink_to_fit();
    }

    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_bounded() {
        let repeated =
            |count: usize, length: usize| bounded((0..count).map(|_| "é".repeat(length / 2)));
        assert_eq!(repeated(MAX_WARNINGS, 10).len(), MAX_WARNINGS);

        let many = repeated(MAX_WARNINGS + 7, 10);
        assert_eq!(
            (many.len(), many[MAX_WARNINGS].as_str()),
            (MAX_WARNINGS + 1, "and 7 more warnings for this model")
        );

        let long = repeated(36_864, 1000);
        assert_eq!(
            (long.len(), long[16].as_str()),
            (17, "and 36848 more warnings for this model")
        );

        let cut = repeated(2, 8 << 20);
        assert!(
            cut.len() == 2
                && cut
                    .iter()
                    .all(|warning| warning.len() == MAX_WARNING_BYTES + 3),
            "{}",
            cut[0].len()
        );
    }
}
