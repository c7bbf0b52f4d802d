//! Engines that fill all memory that the driver reports as free, including leases not yet in use.

use crate::bytes::Bytes;
use crate::report::answer::{Answer, DeviceShare, Verdict};
use crate::report::problem::Reason;

/// Tolerance for rounding: an engine may take one percent more than is available.
const TAKES_PERCENT: u64 = 101;

/// Rejects a placement if the engine would take memory that is leased to others.
pub(super) fn refuse_taking_leased(answer: &mut Answer) {
    if !matches!(answer.verdict, Some(Verdict::Fits | Verdict::Tight)) {
        return;
    }

    let Some(placement) = &mut answer.placement else {
        return;
    };

    let Some(share) = placement.devices.iter().find(|share| takes_leased(share)) else {
        return;
    };

    let message = format!(
        "{}, but the engine fills all memory that the driver reports as free on {} ({}), \
         and {} of it are leased to others",
        answer.message,
        share.name,
        share.uuid,
        Bytes::new(share.leased_bytes)
    );

    placement.launch = None;
    answer.message = message;
    answer.verdict = Some(Verdict::DoesNotFit);
    answer.set_reason(Reason::Leased);
}

/// Whether the engine takes more than is available while leases exist.
fn takes_leased(share: &DeviceShare) -> bool {
    let (Some(takes), Some(available)) = (share.takes_bytes, share.available_bytes) else {
        return false;
    };
    let granted = Bytes::new(available.max(share.required_bytes));
    share.leased_bytes > 0 && Bytes::new(takes).scale(100, TAKES_PERCENT) > granted
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use crate::bytes::Bytes;
    use crate::device::declared;
    use crate::engines::{Engines, sample};
    use crate::evaluate::{HostView, Rules, answer};
    use crate::model::Dtype;
    use crate::placement::Policy;
    use crate::report::Question;
    use crate::report::answer::Verdict;
    use crate::report::problem::Reason;

    /// Returns the verdict and the reason on one card, of which `leased` GiB are leased.
    fn asked(leased: u64, parameters: &serde_json::Value) -> (Option<Verdict>, Option<Reason>) {
        let config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
            "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": 8, "vocab_size": 32_000, "max_position_embeddings": 8192,
            "torch_dtype": "bfloat16"
        });

        let tensors = [(
            "",
            "model.embed_tokens.weight",
            Dtype::BF16,
            &[32_000, 4096][..],
        )];
        let model = sample::model(&config, sample::inventory(&tensors));

        let rules = Rules {
            engines: Engines::embedded().unwrap(),
            policy: Policy::default(),
        };

        let snapshot = declared::parse("H100-80GB", std::time::UNIX_EPOCH).unwrap();
        let leases = BTreeMap::from([("declared-0".to_owned(), Bytes::gib(leased))]);
        let host = HostView::new(&snapshot, &leases);

        let question: Question = serde_json::from_value(json!({
            "model": { "repo": "owner/name" },
            "engine": { "name": "sglang", "parameters": parameters }
        }))
        .unwrap();

        let answer = answer(&question, &model, &host, &rules).unwrap();
        (answer.verdict, answer.known_reason())
    }

    #[test]
    fn filling_engine_is_rejected_with_leases() {
        let own_pool = json!({ "max_total_tokens": "default" });
        let no = (Some(Verdict::DoesNotFit), Some(Reason::Leased));
        assert_eq!(asked(20, &own_pool), no);

        let yes = (Some(Verdict::Fits), Some(Reason::Fits));
        assert_eq!(asked(0, &own_pool), yes);
        assert_eq!(asked(20, &json!({})), yes, "a pool of the need");
    }
}
