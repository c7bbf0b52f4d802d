//! Tests of the quantization that methods and their files state.

use serde_json::json;

use super::*;

#[test]
fn quantization_is_normalized() {
    let read_with = |quantization: Value| {
        let quantization = read(&qwen3_with("quantization_config", quantization))
            .unwrap()
            .quantization
            .unwrap();
        (
            quantization.method.clone(),
            quantization.bits,
            quantization.group_size,
            quantization,
        )
    };

    let (method, bits, group, gptq) =
        read_with(json!({"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": true}));
    assert_eq!(
        (method.as_str(), bits, group, gptq.desc_act),
        ("gptq", Some(4), Some(128), true)
    );
    let (method, bits, _, fp8) =
        read_with(json!({"quant_method": "fp8", "weight_block_size": [128, 128], "fmt": "e4m3"}));
    assert_eq!(
        (method.as_str(), bits, fp8.block, fp8.float),
        ("fp8", Some(8), Some((128, 128)), true)
    );

    let (_, bits, _, tensors) = read_with(
        json!({"quant_method": "compressed-tensors", "format": "float-quantized",
            "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float",
            "strategy": "channel"}, "input_activations": {"num_bits": 8}}}, "ignore": ["lm_head"],
            "kv_cache_scheme": {"num_bits": 8, "type": "float", "strategy": "tensor"}}),
    );
    assert_eq!(
        (bits, tensors.activations, tensors.activation_bits),
        (Some(8), true, Some(8))
    );

    assert_eq!(
        (
            tensors.kv_cache_dtype.as_deref(),
            tensors.skipped.as_slice()
        ),
        (Some("fp8"), &["lm_head".to_owned()][..])
    );

    // vLLM and SGLang read this field only for compressed-tensors and ModelOpt.
    let (.., plain) = read_with(
        json!({"quant_method": "fp8", "kv_cache_scheme": {"num_bits": 8, "type": "float"}}),
    );
    assert_eq!(plain.kv_cache_dtype, None);
    let (_, bits, _, quark) = read_with(json!({"quant_method": "quark", "global_quant_config":
        {"weight": {"dtype": "fp8_e4m3"}, "input_tensors": {"dtype": "fp8_e4m3"}}}));
    assert_eq!(
        (bits, quark.float, quark.activations),
        (Some(8), true, true)
    );
    let (_, bits, group, _) = read_with(json!({"quant_method": "mxfp4"}));
    assert_eq!((bits, group), (Some(4), Some(32)));
    let (method, bits, ..) = read_with(json!({"load_in_4bit": true, "bnb_4bit_quant_type": "nf4"}));
    assert_eq!((method.as_str(), bits), ("bitsandbytes", Some(4)));
    let file = json!({"quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8",
        "group_size": 16, "exclude_modules": ["lm_head"]}});
    let nvfp4 = architecture(&qwen3(), Some(&file), &Inventory::default())
        .unwrap()
        .quantization
        .unwrap();
    assert_eq!(
        (nvfp4.method.as_str(), nvfp4.bits, nvfp4.group_size),
        ("modelopt", Some(4), Some(16))
    );

    assert_eq!(
        (nvfp4.kv_cache_dtype.as_deref(), nvfp4.skipped.len()),
        (Some("fp8"), 1)
    );
}
