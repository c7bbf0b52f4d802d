//! The quantization that a file's name claims.
//!
//! The label only helps to choose a file. The tensor table has the types that the file really uses.

/// Returns the label at the end of a name without `.gguf`, or at the end of its folder's name.
///
/// The label of `Qwen3-8B-Q4_K_M` and of `Q4_K_M/model` is `Q4_K_M`. Other labels are `UD-Q4_K_XL`,
/// `IQ2_XXS` and `BF16`. Returns `None` if neither name ends in a label.
pub fn quantization_label(stem: &str) -> Option<String> {
    stem.rsplit('/').take(2).find_map(label_of_name)
}

fn label_of_name(name: &str) -> Option<String> {
    let (before, last) = name.rsplit_once(['-', '.']).unwrap_or(("", name));
    if !is_label(last) {
        return None;
    }

    // Unsloth's dynamic quantizations differ from the plain ones of the same name.
    let dynamic = before
        .rsplit(['-', '.'])
        .next()
        .is_some_and(|word| word.eq_ignore_ascii_case("UD"));

    let label = last.to_ascii_uppercase();
    Some(if dynamic {
        format!("UD-{label}")
    } else {
        label
    })
}

/// Labels without a number of bits that follows `Q`, `IQ` or `TQ`.
const FLOAT_LABELS: [&str; 9] = [
    "F16",
    "F32",
    "F64",
    "BF16",
    "FP16",
    "FP32",
    "MXFP4",
    "MXFP4_MOE",
    "NVFP4",
];

/// Returns whether a word is a label, such as `Q4_K_M`, `q8_0`, `IQ3_XXS`, `TQ1_0`, `F16` or
/// `MXFP4_MOE`.
fn is_label(word: &str) -> bool {
    let word = word.to_ascii_uppercase();
    let after_prefix = ["IQ", "TQ", "Q"]
        .iter()
        .find_map(|prefix| word.strip_prefix(prefix));

    FLOAT_LABELS.contains(&word.as_str()) || after_prefix.is_some_and(is_bits_and_variant)
}

/// Returns whether `rest` is one digit and any number of short words: `4`, `4_K_M`, `2_XXS`.
fn is_bits_and_variant(rest: &str) -> bool {
    let mut parts = rest.split('_');
    let bits = parts.next().unwrap_or_default();
    let has_bits = bits.len() == 1 && bits.bytes().all(|byte| byte.is_ascii_digit());

    has_bits
        && parts.all(|part| {
            (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
}

#[cfg(test)]
mod tests {
    use super::quantization_label;

    #[test]
    fn label_ends_file_or_folder_name() {
        for (stem, label) in [
            ("Qwen3-8B-Q4_K_M", Some("Q4_K_M")),
            ("Qwen3-8B-UD-Q4_K_XL", Some("UD-Q4_K_XL")),
            ("BF16/Qwen3-8B-BF16", Some("BF16")),
            ("qwen2-7b-instruct-q8_0", Some("Q8_0")),
            ("llama.f16", Some("F16")),
            ("m-IQ2_XXS", Some("IQ2_XXS")),
            ("gpt-oss-20b-MXFP4", Some("MXFP4")),
            ("Q4_K_M/model", Some("Q4_K_M")),
            ("UD-Q2_K_XL/x/model", None),
            ("Qwen3-8B", None),
            ("Quick-Quality", None),
            ("m-Q4_K_verylong", None),
        ] {
            assert_eq!(quantization_label(stem).as_deref(), label, "{stem}");
        }
    }
}
