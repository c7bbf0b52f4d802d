//! The values of absent keys by model type.
//!
//! Published configurations drop values that equal the class's default. Nested configurations
//! always do, so every class that a wrapper nests needs a row. An absent key without a default is
//! reported as missing. Flags are 0 and 1.
//!
//! Source: transformers `models/<type>/configuration_<type>.py`.

type Defaults = &'static [(&'static str, u64)];

/// Returns the defaults of `model_type`, or an empty list.
pub(super) fn for_type(model_type: &str) -> Defaults {
    rows()
        .find(|(types, _)| types.contains(&model_type))
        .map_or(&[], |(_, defaults)| defaults)
}

fn rows() -> impl Iterator<Item = &'static (&'static [&'static str], Defaults)> {
    [
        decoders::ROWS,
        dense::ROWS,
        mixtures::ROWS,
        recurrent::ROWS,
        sparse::ROWS,
        encoders::ROWS,
    ]
    .into_iter()
    .flatten()
}

/// Lists the five sizes that every class has, then its other keys.
macro_rules! sizes {
    (
        $h:literal $i:literal $l:literal $heads:literal $vocabulary:literal
        $($key:literal $value:literal)*
    ) => {
        &[
            ("hidden_size", $h),
            ("intermediate_size", $i),
            ("num_hidden_layers", $l),
            ("num_attention_heads", $heads),
            ("vocab_size", $vocabulary),
            $(($key, $value),)*
        ]
    };
}

mod decoders;
mod dense;
mod encoders;
mod mixtures;
mod recurrent;
mod sparse;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_types_have_one_row() {
        let mut types: Vec<_> = rows().flat_map(|(types, _)| *types).collect();
        let count = types.len();
        types.sort_unstable();
        types.dedup();
        assert_eq!(types.len(), count);
    }
}
