//! Which object of a configuration describes the language model.

use serde_json::Value;

use super::super::architecture::Unsupported;
use super::fields::{Fields, Object, contradiction};
use super::ignored::Ignored;
use super::{defaults, families, heads};

/// Finds the language model's keys and the root's `model_type`.
///
/// Multimodal configurations nest the language model. The nested object is used if it states its
/// heads, or if its type is one whose absent keys have known defaults.
pub(super) fn locate<'a>(
    root: &'a Object,
    ignored: &'a Ignored,
) -> Result<(Fields<'a>, &'a str), Unsupported> {
    let class = match root.get("architectures") {
        None | Some(Value::Null) => "",
        Some(Value::Array(classes)) => classes.first().and_then(Value::as_str).unwrap_or_default(),
        Some(other) => {
            return Err(contradiction(
                "architectures",
                other,
                "a list of classes is expected",
            ));
        }
    };

    let stated = match root.get("model_type") {
        None | Some(Value::Null) => None,
        Some(Value::String(model_type)) => Some(model_type.as_str()),
        Some(other) => return Err(contradiction("model_type", other, "a word is expected")),
    };

    // The original Mamba checkpoints have no type, but a key of their own.
    let root_type = stated.unwrap_or(if root.contains_key("ssm_cfg") {
        mamba_generation(root)
    } else {
        ""
    });
    let named = if class.is_empty() { root_type } else { class };
    let class = if named.is_empty() {
        "configuration without architectures"
    } else {
        named
    };

    let mut fields = Fields {
        class,
        model_type: root_type,
        own: root,
        root,
        defaults: &[],
        ignored,
    };

    if let Some((decoder, model_type)) = nested_decoder(root, root_type)? {
        let inner = decoder.get("model_type").and_then(Value::as_str);
        fields.own = decoder;
        fields.model_type = model_type;
        fields.defaults = defaults::for_type(inner.unwrap_or(model_type));
        return Ok((fields, root_type));
    }

    if let Some(nested) = nested(root)? {
        let own_type = nested.get("model_type").and_then(Value::as_str);
        let inner = own_type
            .or_else(|| families::inside_wrapper(root_type))
            .unwrap_or(root_type);
        let has_heads = heads::HEADS
            .iter()
            .any(|key| nested.get(*key).is_some_and(|value| !value.is_null()));
        let at_root = heads::HEADS
            .iter()
            .any(|key| root.get(*key).is_some_and(|value| !value.is_null()));

        if has_heads || (!at_root && families::find(inner).is_some()) {
            fields.own = nested;
            fields.model_type = inner;
        }
    }

    if fields.model_type.is_empty() {
        return Err(fields.missing("model_type"));
    }

    fields.defaults = defaults::for_type(fields.model_type);
    Ok((fields, root_type))
}

/// Returns the decoder of a configuration that nests both halves of an encoder-decoder, and the
/// type whose rules it follows.
///
/// Wrappers of any two models have rules of their own, whatever the decoder's type.
fn nested_decoder<'a>(
    root: &'a Object,
    root_type: &'a str,
) -> Result<Option<(&'a Object, &'a str)>, Unsupported> {
    let (key, model_type) = match root_type {
        "canary" => ("decoder_config", "canary_decoder"),
        "dia" => ("decoder_config", "dia_decoder"),
        "encoder-decoder" | "vision-encoder-decoder" | "speech-encoder-decoder" => {
            ("decoder", root_type)
        }
        _ => return Ok(None),
    };

    match root.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(decoder)) => Ok(Some((decoder, model_type))),
        Some(other) => Err(contradiction(key, other, "an object is expected")),
    }
}

fn nested(root: &Object) -> Result<Option<&Object>, Unsupported> {
    let root_type = root.get("model_type").and_then(Value::as_str);
    // T5Gemma states its two halves as whole configurations.
    let keys: &[&str] = if root_type.is_some_and(|name| name.starts_with("t5gemma")) {
        &["decoder"]
    } else {
        &["text_config", "llm_config", "language_config"]
    };

    for key in keys {
        match root.get(*key) {
            None | Some(Value::Null) => {}
            Some(Value::Object(nested)) => {
                return Ok(Some(nested).filter(|nested| !nested.is_empty()));
            }
            Some(other) => return Err(contradiction(key, other, "an object is expected")),
        }
    }

    let thinker = root
        .get("thinker_config")
        .and_then(|thinker| thinker.get("text_config"));

    Ok(thinker
        .and_then(Value::as_object)
        .filter(|nested| !nested.is_empty()))
}

fn mamba_generation(root: &Object) -> &'static str {
    let layer = root
        .get("ssm_cfg")
        .and_then(|ssm| ssm.get("layer"))
        .and_then(Value::as_str);

    if layer == Some("Mamba2") {
        "mamba2_ssm"
    } else {
        "mamba_ssm"
    }
}
