//! Recurrent states, whose size is fixed, and the keys of each kind of recurrent layer.
//!
//! Sources: vLLM `model_executor/layers/mamba/mamba_utils.py` (`MambaStateShapeCalculator`) and the
//! models' own configuration classes.

use super::super::architecture::{Recurrent, Unsupported};
use super::fields::{Fields, contradiction};
use super::heads::{self, HIDDEN};

/// Reads Mamba-1, with `intermediate_size` or expand x h channels.
pub(super) fn mamba1(fields: &Fields<'_>) -> Result<Recurrent, Unsupported> {
    // In Jamba and Zamba, `intermediate_size` belongs to the feed-forward.
    let own_width =
        if fields.value("mamba_expand").is_none() && fields.default("mamba_expand").is_none() {
            fields.size(&["intermediate_size"])?
        } else {
            None
        };

    let inner = match own_width {
        Some(width) => width,
        None => expanded(fields)?,
    };

    Ok(Recurrent::Mamba1 {
        inner,
        state: fields.need(&["state_size", "mamba_d_state"])?,
        conv: fields.need(&["conv_kernel", "mamba_d_conv"])?,
    })
}

/// Reads Mamba-2 under any of its key names.
pub(super) fn mamba2(fields: &Fields<'_>) -> Result<Recurrent, Unsupported> {
    let plain: &[&str] = if fields.model_type == "mamba2" {
        &["num_heads"]
    } else {
        &[]
    };

    let heads = fields.need(
        &[
            plain,
            &["mamba_num_heads", "mamba_n_heads", "n_mamba_heads"],
        ]
        .concat(),
    )?;

    let named = fields.size(&["mamba_d_ssm"])?;
    let dims: &[&str] = if fields.model_type == "mamba2" {
        &["head_dim"]
    } else {
        &["mamba_head_dim"]
    };

    // In Bamba and Granite, "auto" means expand x h / heads.
    let automatic = fields.text("mamba_d_head") == Some("auto");
    let head_dim = match fields.size(dims)? {
        Some(dim) => dim,
        None if !automatic && fields.value("mamba_d_head").is_some() => {
            fields.need(&["mamba_d_head"])?
        }
        None if fields.value("mamba_headdim").is_some() => fields.need(&["mamba_headdim"])?,
        None => {
            let inner = match named {
                Some(inner) => inner,
                None => expanded(fields)?,
            };

            if !inner.is_multiple_of(heads) {
                return Err(contradiction(
                    "mamba_n_heads",
                    &heads.into(),
                    format!("{inner} channels are not divisible by it"),
                ));
            }

            inner / heads
        }
    };

    let inner = heads.saturating_mul(head_dim);
    if let Some(named) = named.filter(|named| *named != inner) {
        return Err(contradiction(
            "mamba_d_ssm",
            &named.into(),
            format!("{heads} heads of {head_dim} are {inner}"),
        ));
    }

    Ok(Recurrent::Mamba2 {
        inner,
        heads,
        head_dim,
        state: fields.need(&["ssm_state_size", "mamba_d_state", "state_size"])?,
        groups: fields.need(&["mamba_n_groups", "n_groups", "mamba_ngroups"])?,
        conv: fields.need(&["conv_kernel", "mamba_d_conv"])?,
    })
}

fn expanded(fields: &Fields<'_>) -> Result<u64, Unsupported> {
    let hidden = fields.need(HIDDEN)?;
    Ok(fields
        .need(&["expand", "mamba_expand"])?
        .saturating_mul(hidden))
}

/// Reads a gated delta net.
pub(super) fn gated_delta(fields: &Fields<'_>) -> Result<Recurrent, Unsupported> {
    Ok(Recurrent::GatedDelta {
        key_heads: fields.need(&["linear_num_key_heads"])?,
        value_heads: fields.need(&["linear_num_value_heads"])?,
        key_dim: fields.need(&["linear_key_head_dim"])?,
        value_dim: fields.need(&["linear_value_head_dim"])?,
        conv: fields.need(&["linear_conv_kernel_dim"])?,
    })
}

/// Reads RWKV: two token shifts and h x head size.
///
/// Generation 4 keeps five vectors of h instead: numerator, denominator, maximum, and two shifts
/// (transformers `modeling_rwkv.py`).
pub(super) fn rwkv(fields: &Fields<'_>, generation: u8) -> Result<Recurrent, Unsupported> {
    let hidden = fields.need(HIDDEN)?;
    let head_size = match generation {
        4 => 3,
        _ => fields.need(&["head_size", "head_dim"])?,
    };

    Ok(Recurrent::Rwkv {
        hidden,
        head_size,
        token_shift: 2,
    })
}

/// Reads lightning attention, which uses the model's own heads.
pub(super) fn lightning(fields: &Fields<'_>) -> Result<Recurrent, Unsupported> {
    let heads = fields.need(heads::HEADS)?;
    Ok(Recurrent::Lightning {
        heads,
        head_dim: heads::head_dim(fields, heads)?,
    })
}
