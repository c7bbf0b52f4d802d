//! Distribution of layers over pipeline stages, and parallel degrees that divide a number of
//! devices.

use std::ops::Range;

/// vLLM's stages (`distributed/utils.py`, `get_pp_indices`).
///
/// Each stage before the last gets one layer of the remainder, from the last of them backwards. The
/// first stage gets one only if no other stage is left.
pub fn vllm_stages(layers: u32, stages: u32) -> Vec<Range<u32>> {
    divide_layers(layers, stages, |index, stages, rest| {
        index + 1 + rest >= stages && index + 1 < stages
    })
}

/// SGLang's stages (`distributed/utils.py`, `get_pp_indices`): the last stages get the remainder.
pub fn sglang_stages(layers: u32, stages: u32) -> Vec<Range<u32>> {
    divide_layers(layers, stages, |index, stages, rest| index + rest >= stages)
}

/// Divides `layers` over `stages`; `gets_one_more` picks the stages that get a remaining layer.
fn divide_layers(
    layers: u32,
    stages: u32,
    gets_one_more: impl Fn(u32, u32, u32) -> bool,
) -> Vec<Range<u32>> {
    let stages = stages.max(1);
    let (base, rest) = (layers / stages, layers % stages);
    let mut from = 0;
    let next_stage = |index| {
        let to = from + base + u32::from(gets_one_more(index, stages, rest));
        let range = from..to;
        from = to;
        range
    };

    (0..stages).map(next_stage).collect()
}

/// The pairs (tensor, stages) with `tensor x stages = devices`, the highest tensor degree first.
pub fn degrees(devices: u32) -> impl Iterator<Item = (u32, u32)> {
    (1..=devices)
        .rev()
        .filter(move |tensor| devices.is_multiple_of(*tensor))
        .map(move |tensor| (tensor, devices / tensor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widths(stages: &[Range<u32>]) -> Vec<u32> {
        stages.iter().map(|stage| stage.end - stage.start).collect()
    }

    #[test]
    fn vllm_remainder_avoids_both_ends() {
        assert_eq!(widths(&vllm_stages(61, 4)), [15, 15, 16, 15]);
        assert_eq!(widths(&vllm_stages(62, 4)), [15, 16, 16, 15]);
        assert_eq!(widths(&vllm_stages(63, 4)), [16, 16, 16, 15]);
        assert_eq!(widths(&vllm_stages(33, 2)), [17, 16]);
        assert_eq!(widths(&vllm_stages(32, 1)), [32]);
    }

    #[test]
    fn sglang_remainder_goes_last() {
        assert_eq!(widths(&sglang_stages(61, 4)), [15, 15, 15, 16]);
        assert_eq!(widths(&sglang_stages(62, 4)), [15, 15, 16, 16]);
        assert_eq!(widths(&sglang_stages(3, 8)).iter().sum::<u32>(), 3);
    }

    #[test]
    fn degrees_multiply_to_devices() {
        assert_eq!(
            degrees(6).collect::<Vec<_>>(),
            [(6, 1), (3, 2), (2, 3), (1, 6)]
        );
    }
}
