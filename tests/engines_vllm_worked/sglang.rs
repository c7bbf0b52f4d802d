//! SGLang's caches.

use std::collections::BTreeMap;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::engines::sglang::Sglang;
use hf_mem_core::engines::{AskedContext, AskedWorkload, EngineRequest, PreparedEngine as _};
use hf_mem_core::model::Inventory;
use serde_json::json;

use super::{gemma_3_27b, h100, model, split};

#[test]
fn sglang_gemma_windows_keep_full_context() {
    let device = h100();
    let parameters = BTreeMap::new();
    let gemma = model(&gemma_3_27b(), Inventory::default());

    let asked = AskedWorkload {
        context: Some(AskedContext::Tokens(131_072)),
        ..AskedWorkload::default()
    };

    let request = EngineRequest {
        model: &gemma,
        version: None,
        parameters: &parameters,
        asked,
        devices: std::slice::from_ref(&device),
    };

    let engine = Sglang::with_profiles(Sglang::profiles().unwrap());
    let prepared = engine.prepare(&request).unwrap();
    assert_eq!(prepared.kv_bytes_per_token(), Bytes::new(507_904));
    let split = split(&gemma, 1);
    let parts = prepared
        .variable(&split, 0, &device, prepared.workload())
        .unwrap();

    // The pool has one page more than the tokens need.
    assert_eq!(parts[0].bytes.likely.get(), 66_571_993_088 + 507_904);
}

#[test]
fn sglang_pools_serve_encoders() {
    // A start-up log of BGE-M3: 23.48 GiB hold 256,568 tokens.
    let bge = json!({
        "architectures": ["XLMRobertaModel"], "model_type": "xlm-roberta", "hidden_size": 1024,
        "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
        "vocab_size": 250_002, "max_position_embeddings": 8194, "torch_dtype": "float32"
    });
    let (model, device, none) = (model(&bge, Inventory::default()), h100(), BTreeMap::new());

    let asked = AskedWorkload {
        dtype: Some("float16".to_owned()),
        ..AskedWorkload::default()
    };

    let devices = std::slice::from_ref(&device);
    let request = EngineRequest {
        model: &model,
        version: None,
        parameters: &none,
        asked,
        devices,
    };

    let sglang = hf_mem_core::engines::by_name("sglang").unwrap();
    let per_token = sglang.prepare(&request).unwrap().kv_bytes_per_token().get();
    assert_eq!(per_token, 24 * 2 * 1024 * 2);
    let hundredths = per_token * 256_568 * 100 / (1 << 30);
    assert!((2348..=2349).contains(&hundredths), "{hundredths}");
}
