//! The quantisation that a file's name claims. It is a label to choose by; what a file holds is
//! said by its table.

/// The label at the end of a name (without `.gguf`), or of its folder's: `Q4_K_M` of
/// `Qwen3-8B-Q4_K_M` and of `Q4_K_M/model`, `UD-Q4_K_XL`, `IQ2_XXS`, `BF16`; `None` where neither
/// ends in such a word.
pub fn quantisation(stem: &str) -> Option<String> {
    stem.rsplit('/').take(2).find_map(of_name)
}

fn of_name(name: &str) -> Option<String> {
    let (before, last) = name.rsplit_once(['-', '.']).unwrap_or(("", name));
    if !is_label(last) {
        return None;
    }
    // Unsloth's dynamic quantisations are other files than the plain ones of the same name.
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

/// `Q4_K_M`, `q8_0`, `IQ3_XXS`, `TQ1_0`, `F16`, `BF16`, `FP16`, `MXFP4`, `MXFP4_MOE`, `NVFP4`.
fn is_label(word: &str) -> bool {
    let word = word.to_ascii_uppercase();
    let whole = [
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

    let digits = ["IQ", "TQ", "Q"]
        .iter()
        .find_map(|kind| word.strip_prefix(kind));
    let numbered = |rest: &str| {
        let mut parts = rest.split('_');
        let bits = parts.next().unwrap_or_default();
        let part = |part: &str| {
            (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        };
        bits.len() == 1 && bits.bytes().all(|byte| byte.is_ascii_digit()) && parts.all(part)
    };

    whole.contains(&word.as_str()) || digits.is_some_and(numbered)
}

#[cfg(test)]
mod tests {
    use super::quantisation;

    #[test]
    fn labels_stand_at_the_end_of_names() {
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
            assert_eq!(quantisation(stem).as_deref(), label, "{stem}");
        }
    }
}
