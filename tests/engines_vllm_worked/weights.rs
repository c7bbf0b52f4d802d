//! Weights on one rank.

use hf_mem_core::bytes::Bytes;

use super::weight_bytes;

#[test]
fn weights_by_rank() {
    for (repo, tensor, expected) in [
        ("meta-llama/Llama-3.1-8B-Instruct", 1, 16_094_076_928),
        ("meta-llama/Llama-3.1-8B-Instruct", 2, 8_064_081_920),
        ("meta-llama/Llama-3.1-8B-Instruct", 4, 4_049_084_416),
        ("meta-llama/Llama-3.1-70B-Instruct", 4, 35_312_386_048),
        ("Qwen/Qwen3-30B-A3B", 1, 61_064_245_248 + 10_485_760),
        (
            "deepseek-ai/DeepSeek-V3",
            8,
            85_140_130_848 + 255_852_544 + 20_971_520,
        ),
        (
            "deepseek-ai/DeepSeek-V3",
            16,
            43_139_382_208 + 127_926_272 + 20_971_520,
        ),
        (
            "deepseek-ai/DeepSeek-V3",
            1,
            673_150_611_808 + 8 * 255_852_544 + 20_971_520,
        ),
        ("MiniMaxAI/MiniMax-M2.5", 1, 230_121_630_720 + 25_165_824),
        ("MiniMaxAI/MiniMax-M2.5", 4, 57_677_307_648 + 25_165_824),
        // vLLM keeps each `A_log`, `D` and `dt_bias` of 64 heads and the biases of 128 experts in
        // 32 bits: two bytes more each.
        (
            "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
            1,
            63_155_880_576 + 23 * 2 * (3 * 64 + 128),
        ),
        ("google/gemma-3-27b-it", 1, 54_864_813_280 + 301_989_888),
    ] {
        let Some(ours) = weight_bytes(repo, tensor, &[]) else {
            return;
        };

        assert_eq!(
            ours,
            expected,
            "{repo} TP{tensor}: off by {}",
            i128::from(ours) - i128::from(expected)
        );
    }
}

#[test]
fn cast_and_padded_weights() {
    let Some(cast) = weight_bytes("google/embeddinggemma-300m", 1, &[]) else {
        return;
    };

    // Half of the stored bytes, and the two dense heads of 768 x 3072 in 32 bits, as vLLM's pooling
    // runner keeps them; at most a rope table more.
    let heads = 2 * 768 * 3072 * 4;
    assert!(
        (605_726_208..=605_726_208 + heads + (3 << 20)).contains(&cast),
        "{cast}"
    );
    let Some(marlin) = weight_bytes("openai/gpt-oss-120b", 1, &[]) else {
        return;
    };

    let gib = Bytes::new(marlin).as_gib();
    assert!((gib - 65.89).abs() < 0.03, "{gib}");
    let Some(scout) = weight_bytes("meta-llama/Llama-4-Scout-17B-16E-Instruct", 4, &[]) else {
        return;
    };

    let gib = Bytes::new(scout).as_gib();
    assert!((gib - 53.12).abs() < 0.01, "{gib}");
}
