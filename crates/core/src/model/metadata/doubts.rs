//! What is doubted of a model, as far as a model keeps it: every answer about the model repeats it.

/// Doubts that are kept one by one.
const MAX_DOUBTS: usize = 64;
/// The longest of them; a longer one is cut.
const MAX_DOUBT_BYTES: usize = 1 << 10;
/// All of them together.
const MAX_ALL_BYTES: usize = 16 << 10;

/// The first of `doubts`, each cut where it is long, with a last line that says how many more there
/// are.
pub(super) fn bounded(doubts: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut doubts = doubts.into_iter().map(shortened).peekable();
    let (mut kept, mut bytes) = (Vec::new(), 0);
    while let Some(doubt) =
        doubts.next_if(|doubt| kept.len() < MAX_DOUBTS && bytes + doubt.len() <= MAX_ALL_BYTES)
    {
        bytes += doubt.len();
        kept.push(doubt);
    }

    let more = doubts.count();
    if more > 0 {
        kept.push(format!("and {more} more doubts of this model"));
    }

    kept
}

/// `text`, cut where it is long.
pub(super) fn shortened(mut text: String) -> String {
    if text.len() > MAX_DOUBT_BYTES {
        let end = (0..=MAX_DOUBT_BYTES)
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
    fn doubts_are_told_up_to_a_number_and_a_length() {
        let told =
            |count: usize, length: usize| bounded((0..count).map(|_| "é".repeat(length / 2)));
        assert_eq!(told(MAX_DOUBTS, 10).len(), MAX_DOUBTS);
        let many = told(MAX_DOUBTS + 7, 10);
        assert_eq!(
            (many.len(), many[MAX_DOUBTS].as_str()),
            (MAX_DOUBTS + 1, "and 7 more doubts of this model")
        );
        let long = told(36_864, 1000);
        assert_eq!(
            (long.len(), long[16].as_str()),
            (17, "and 36848 more doubts of this model")
        );
        let cut = told(2, 8 << 20);
        assert!(
            cut.len() == 2 && cut.iter().all(|doubt| doubt.len() == MAX_DOUBT_BYTES + 3),
            "{}",
            cut[0].len()
        );
    }
}
