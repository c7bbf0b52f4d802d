//! Logical parameters of a checkpoint, and its stored bytes split into routed experts and the rest.

use super::super::dtype::Dtype;
use super::super::quantization::Quantization;
use super::super::tensors::{Inventory, TensorClass};
use crate::bytes::Bytes;

/// Counts the weights as the Hub does.
///
/// These are all elements except a quantized checkpoint's scales, zero points and indices.
///
/// Packed weights (GPTQ, AWQ and MLX in 32-bit words; bitsandbytes, MXFP4 and NVFP4 in bytes) are
/// unpacked. Returns `None` if a packing is unknown or nothing is stored.
pub fn logical_parameters(
    inventory: &Inventory,
    quantization: Option<&Quantization>,
) -> Option<u64> {
    if inventory.classes.is_empty() {
        return None;
    }

    let mut sum: u64 = 0;
    for class in &inventory.classes {
        if quantization.is_some() && is_metadata(&class.pattern, quantization) {
            continue;
        }

        let elements = class.elements_each().checked_mul(class.count)?;
        let logical = match packing(class, inventory, quantization) {
            Packing::None => elements,
            Packing::Words(0) => return None,
            Packing::Words(bits) => elements.checked_mul(32)? / u64::from(bits),
            Packing::Halves => elements.checked_mul(2)?,
        };

        sum = sum.checked_add(logical)?;
    }

    Some(sum)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    /// One element for each weight.
    None,
    /// Weights of this many bits in 32-bit words; 0 if the number of bits is unknown.
    Words(u32),
    /// Two weights per byte.
    Halves,
}

fn packing(
    class: &TensorClass,
    inventory: &Inventory,
    quantization: Option<&Quantization>,
) -> Packing {
    let name = &*class.pattern;
    let weight =
        name.ends_with(".weight") || name.ends_with(".weight_packed") || name.ends_with(".qweight");
    let bits = quantization.and_then(|quantization| quantization.bits);

    match class.dtype() {
        Some(Dtype::I32 | Dtype::U32) if weight => Packing::Words(bits.unwrap_or(0)),
        // MXFP4 experts of gpt-oss have the suffix `_blocks`.
        Some(Dtype::U8) if name.ends_with("_blocks") => Packing::Halves,
        Some(Dtype::U8) if weight && !is_metadata(name, quantization) && bits == Some(4) => {
            Packing::Halves
        }
        // Mixed checkpoints do not state 4 bits, but a scale for each 32 or 16 elements shows it.
        Some(Dtype::U8 | Dtype::I8) if weight && scaled_in_groups(class, inventory) => {
            Packing::Halves
        }
        _ => Packing::None,
    }
}

/// Returns whether a byte tensor holds two weights per byte.
///
/// Its scale then serves groups of 32 or 16 weights.
fn scaled_in_groups(class: &TensorClass, inventory: &Inventory) -> bool {
    let Some(stem) = class
        .pattern
        .strip_suffix(".weight")
        .or_else(|| class.pattern.strip_suffix(".weight_packed"))
    else {
        return false;
    };

    let Some(&columns) = class.shape.last() else {
        return false;
    };

    let names = [format!("{stem}.scale"), format!("{stem}.weight_scale")];
    inventory.classes.iter().any(|scale| {
        names.iter().any(|name| **name == *scale.pattern)
            && scale.shape.len() == class.shape.len()
            && scale.shape.len() >= 2
            && scale.shape.first() == class.shape.first()
            && scale.shape.last().is_some_and(|groups| {
                let weights = columns.saturating_mul(2);
                groups.saturating_mul(32) == weights || groups.saturating_mul(16) == weights
            })
    })
}

/// Returns whether a name is that of scales, zero points, indices or quantization states.
fn is_metadata(pattern: &str, quantization: Option<&Quantization>) -> bool {
    const SUFFIXES: &[&str] = &[
        ".scales",
        ".qzeros",
        ".g_idx",
        ".perm",
        ".weight_scale",
        ".weight_scale_2",
        ".weight_scale_inv",
        ".input_scale",
        ".weight_zero_point",
        ".weight_shape",
        ".weight_g_idx",
        ".weight_global_scale",
        ".input_global_scale",
        ".absmax",
        ".quant_map",
        ".nested_absmax",
        ".nested_quant_map",
        ".k_scale",
        ".v_scale",
        "_scales",
        "_scale_inv",
        ".SCB",
        ".weight_format",
        "_weight_scale",
        "_weight_scale_2",
        "_input_scale",
    ];

    let mlx = quantization.is_some_and(|quantization| quantization.method == "mlx");
    SUFFIXES.iter().any(|suffix| pattern.ends_with(suffix))
        || pattern.contains(".quant_state.")
        || (mlx && pattern.ends_with(".biases"))
        || (quantization.is_some()
            && pattern.split('.').next_back() == Some("scale")
            && !pattern.contains("norm")
            && !pattern.contains("router"))
}

/// Stored bytes of a mixture of experts, split into shared weights and routed experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertShare {
    /// Attention, embeddings, routers, dense layers and shared experts: the weights that every
    /// token uses.
    pub shared: Bytes,
    /// All routed experts.
    pub experts: Bytes,
}

/// Splits stored weights into shared and routed ones; `None` for a model without experts.
pub fn expert_share(inventory: &Inventory) -> Option<ExpertShare> {
    let experts: Bytes = inventory
        .classes
        .iter()
        .filter(|class| is_expert(&class.pattern))
        .map(TensorClass::bytes)
        .sum();
    let shared = inventory.bytes().less(experts)?;
    (experts > Bytes::ZERO).then_some(ExpertShare { shared, experts })
}

/// Returns whether a name belongs to a routed expert.
///
/// Such names are `experts.*.up_proj`, stacked `experts.gate_up_proj`, GGUF's `ffn_up_exps`, and
/// the stacked linears of Granite.
fn is_expert(pattern: &str) -> bool {
    let granite = pattern.contains("block_sparse_moe.input_linear")
        || pattern.contains("block_sparse_moe.output_linear");
    pattern.contains(".experts.")
        || pattern.contains("_exps.")
        || pattern.ends_with("_exps")
        || granite
}

#[cfg(test)]
mod tests {
    use super::super::super::tensors::{InventoryBuilder, Storage};
    use super::*;

    fn inventory(tensors: &[(&str, Dtype, &[u64])]) -> Inventory {
        let mut builder = InventoryBuilder::default();
        for (name, dtype, shape) in tensors {
            let bytes = dtype.stored(shape.iter().product()).unwrap();
            builder.add("", name, Storage::Known(*dtype), shape, bytes);
        }
        builder.finish()
    }

    fn quantized(method: &str, bits: u32) -> Quantization {
        Quantization {
            method: method.to_owned(),
            bits: Some(bits),
            ..Quantization::default()
        }
    }

    #[test]
    fn packed_weights_count_as_logical() {
        let awq = inventory(&[
            ("l.0.qweight", Dtype::I32, &[64, 16]),
            ("l.0.qzeros", Dtype::I32, &[1, 16]),
            ("l.0.scales", Dtype::F16, &[1, 128]),
            ("norm.weight", Dtype::F16, &[64]),
        ]);
        assert_eq!(
            logical_parameters(&awq, Some(&quantized("awq", 4))),
            Some(64 * 128 + 64)
        );
        assert_eq!(logical_parameters(&awq, None), None);

        let mxfp4 = inventory(&[
            ("e.w_blocks", Dtype::U8, &[2, 8, 3, 16]),
            ("e.w_scales", Dtype::U8, &[2, 8, 3]),
        ]);
        assert_eq!(
            logical_parameters(&mxfp4, Some(&quantized("mxfp4", 4))),
            Some(2 * 8 * 96)
        );

        let fp8 = inventory(&[
            ("a.weight", Dtype::F8E4M3, &[8, 8]),
            ("a.weight_scale_inv", Dtype::F32, &[1, 1]),
        ]);
        assert_eq!(
            logical_parameters(&fp8, Some(&quantized("fp8", 8))),
            Some(64)
        );
    }

    #[test]
    fn group_scales_imply_four_bits() {
        let v4 = inventory(&[
            ("l.0.ffn.experts.0.w1.weight", Dtype::I8, &[8, 64]),
            ("l.0.ffn.experts.0.w1.scale", Dtype::F8E8M0, &[8, 4]),
            ("l.0.attn.wkv.weight", Dtype::F8E4M3, &[8, 8]),
        ]);
        assert_eq!(
            logical_parameters(&v4, Some(&quantized("fp8", 8))),
            Some(8 * 128 + 64)
        );
    }

    #[test]
    fn expert_share_splits_routed_and_shared() {
        let mixture = inventory(&[
            ("l.0.mlp.experts.0.up_proj.weight", Dtype::BF16, &[4, 4]),
            (
                "l.0.mlp.shared_experts.up_proj.weight",
                Dtype::BF16,
                &[4, 2],
            ),
        ]);
        let share = expert_share(&mixture).unwrap();
        assert_eq!(
            (share.shared, share.experts),
            (Bytes::new(16), Bytes::new(32))
        );

        assert_eq!(
            expert_share(&inventory(&[("a.weight", Dtype::BF16, &[4])])),
            None
        );
    }
}
