//! The contract, generated from the wire types. A snapshot of it stands in the tests, so that a
//! change shows in review.

use std::time::Duration;

use hf_mem_core::report::TogetherAnswer;
use hf_mem_core::report::bounded::PARTS;
use hf_mem_core::report::lease::LeaseAnswer;
use hf_mem_core::report::{Answer, Problem, Question};
use utoipa::openapi::{Object, RefOr, Required, Schema};
use utoipa::{Modify, OpenApi};

use super::batch::BatchQuestion;
use super::bounds::MAX_HOLDER_BYTES;
use super::lease::{LeaseRequest, LeasesAnswer, RenewRequest};
use super::status::{
    GpusAnswer, HealthAnswer, NvmlReleaseAnswer, NvmlReleaseRequest, WatchLine, WatchProblem,
};

/// The document as JSON text, for a daemon on which leases wait up to `max_wait`.
pub fn json(max_wait: Duration) -> String {
    let mut document = Document::openapi();
    bound(&mut document, "LeaseRequest", "wait_seconds", |wait| {
        wait.maximum = Some(max_wait.as_secs().into());
    });

    // Plain structs with string keys: writing them cannot fail.
    document
        .to_pretty_json()
        .unwrap_or_else(|_| "{}".to_owned())
}

/// The document. Handlers are generic over the program behind them, so the operations are described
/// here.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "hf-mem-probe",
        version = "1",
        description = "Answers whether and how a Hugging Face model fits on this host's GPUs, over a Unix socket. \
                       Clients must ignore keys that they do not know; an unknown key in a request is refused. \
                       \"Does not fit\" is an answer (200), failures are problem documents (RFC 9457)."
    ),
    paths(
        operations::fits,
        operations::estimates,
        operations::gpus,
        operations::watch,
        operations::leases,
        operations::create_lease,
        operations::lease,
        operations::release_lease,
        operations::renew_lease,
        operations::release_nvml,
        operations::health,
        operations::openapi,
        operations::metrics
    ),
    components(schemas(Question, BatchQuestion, Answer, TogetherAnswer, WatchLine, WatchProblem)),
    modifiers(&OptionalBodies, &InnerBounds)
)]
struct Document;

/// A question, or several that must fit together.
#[derive(utoipa::ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum FitsBody {
    One(Box<Question>),
    Several(BatchQuestion),
}

/// The answer to a question, or to several that must fit together.
#[derive(utoipa::ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum FitsAnswer {
    One(Box<Answer>),
    Several(TogetherAnswer),
}

/// The devices, or why they cannot be read for now.
#[derive(utoipa::ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum WatchedLine {
    Devices(Box<WatchLine>),
    Trouble(WatchProblem),
}

/// Every body is required by default: here those that may be left out.
struct OptionalBodies;

/// The routes whose body may be left out.
const OPTIONAL_BODIES: [&str; 2] = ["/v1/leases/{id}/renew", "/v1/nvml/release"];

impl Modify for OptionalBodies {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for path in OPTIONAL_BODIES {
            let operation = document
                .paths
                .paths
                .get_mut(path)
                .and_then(|item| item.post.as_mut());
            if let Some(RefOr::T(body)) =
                operation.and_then(|operation| operation.request_body.as_mut())
            {
                body.required = Some(Required::False);
            }
        }
    }
}

/// Bounds of what no attribute reaches: values inside an enum's variants, and the number of an
/// object's properties.
struct InnerBounds;

impl Modify for InnerBounds {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        bound(document, "EngineQuestion", "parameters", |parameters| {
            parameters.max_properties = Some(PARTS);
        });
        bound(document, "Holder", "name", |name| {
            name.min_length = Some(1);
            name.max_length = usize::try_from(MAX_HOLDER_BYTES).ok();
        });
        bound(document, "Holder", "pid", |pid| {
            pid.minimum = Some(1.into());
        });

        if let Some(RefOr::T(Schema::OneOf(context))) = schema(document, "ContextQuestion") {
            for tokens in context.items.iter_mut().filter_map(object) {
                tokens.minimum = Some(1.into());
            }
        }
    }
}

/// Bounds the property `name` of the schema `of`, or of each of its alternatives that has one.
fn bound(document: &mut utoipa::openapi::OpenApi, of: &str, name: &str, set: impl Fn(&mut Object)) {
    let Some(schema) = schema(document, of) else {
        return;
    };

    let alternatives = match schema {
        RefOr::T(Schema::OneOf(one_of)) => one_of.items.iter_mut().collect(),
        single => vec![single],
    };

    let properties = alternatives
        .into_iter()
        .filter_map(object)
        .filter_map(|it| it.properties.get_mut(name));
    properties.filter_map(object).for_each(set);
}

fn schema<'a>(
    document: &'a mut utoipa::openapi::OpenApi,
    name: &str,
) -> Option<&'a mut RefOr<Schema>> {
    document.components.as_mut()?.schemas.get_mut(name)
}

fn object(schema: &mut RefOr<Schema>) -> Option<&mut Object> {
    match schema {
        RefOr::T(Schema::Object(object)) => Some(object),
        _ => None,
    }
}

#[expect(
    dead_code,
    reason = "each function only carries its operation's description"
)]
mod operations {
    use super::{
        Answer, FitsAnswer, FitsBody, GpusAnswer, HealthAnswer, LeaseAnswer, LeaseRequest,
        LeasesAnswer, NvmlReleaseAnswer, NvmlReleaseRequest, Problem, Question, RenewRequest,
        WatchedLine,
    };

    /// Whether and how a model fits here, now. With `questions`: whether they all fit at once.
    #[utoipa::path(post, path = "/v1/fits", tag = "hf-mem-probe", request_body = inline(FitsBody), responses(
        (status = 200, description = "The answer; to `questions` with one for each", body = inline(FitsAnswer)),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    ))]
    pub(super) fn fits() {}

    /// What a model needs, whatever is free.
    #[utoipa::path(post, path = "/v1/estimates", tag = "hf-mem-probe", request_body = Question, responses(
        (status = 200, description = "The answer", body = Answer),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    ))]
    pub(super) fn estimates() {}

    /// The devices as last read, at most one sampling interval ago.
    #[utoipa::path(get, path = "/v1/gpus", tag = "hf-mem-probe", params(
        ("fresh" = Option<bool>, Query, description = "Whether to wait for a reading that begins now")
    ), responses(
        (status = 200, description = "The answer", body = GpusAnswer),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    ))]
    pub(super) fn gpus() {}

    /// The same whenever it changes, one object a line, with what happened to leases since the line
    /// before, until the caller leaves or the daemon stops.
    #[utoipa::path(get, path = "/v1/gpus/watch", tag = "hf-mem-probe", responses(
        (status = 200, description = "The answer", body = inline(WatchedLine), content_type = "application/x-ndjson"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    ))]
    pub(super) fn watch() {}

    /// Every lease.
    #[utoipa::path(get, path = "/v1/leases", tag = "hf-mem-probe", responses(
        (status = 200, description = "The answer", body = LeasesAnswer),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    ))]
    pub(super) fn leases() {}

    /// Answers like `/v1/fits` to one question and holds what was answered; `lease` is there when
    /// it was granted.
    #[utoipa::path(post, path = "/v1/leases", tag = "hf-mem-probe", request_body = LeaseRequest, responses(
        (status = 200, description = "The answer", body = Answer),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    ))]
    pub(super) fn create_lease() {}

    /// One lease.
    #[utoipa::path(get, path = "/v1/leases/{id}", tag = "hf-mem-probe", params(("id" = String, Path, description = "The lease's id", min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9-]+$")), responses(
        (status = 200, description = "The answer", body = LeaseAnswer),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    ))]
    pub(super) fn lease() {}

    /// Ends a lease and answers it as it was.
    #[utoipa::path(delete, path = "/v1/leases/{id}", tag = "hf-mem-probe", params(("id" = String, Path, description = "The lease's id", min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9-]+$")), responses(
        (status = 200, description = "The answer", body = LeaseAnswer),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    ))]
    pub(super) fn release_lease() {}

    /// Makes a lease go on. The body may be left out.
    #[utoipa::path(post, path = "/v1/leases/{id}/renew", tag = "hf-mem-probe", request_body = RenewRequest, params(("id" = String, Path, description = "The lease's id", min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9-]+$")), responses(
        (status = 200, description = "The answer", body = LeaseAnswer),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    ))]
    pub(super) fn renew_lease() {}

    /// Lets go of the driver for a reset or a change of MIG. The body may be left out.
    #[utoipa::path(post, path = "/v1/nvml/release", tag = "hf-mem-probe", request_body = NvmlReleaseRequest, responses(
        (status = 200, description = "The answer", body = NvmlReleaseAnswer),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    ))]
    pub(super) fn release_nvml() {}

    /// How the daemon is; 200 also when degraded, since it answers.
    #[utoipa::path(get, path = "/v1/health", tag = "hf-mem-probe", responses(
        (status = 200, description = "The answer", body = HealthAnswer),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    ))]
    pub(super) fn health() {}

    /// This document.
    #[utoipa::path(get, path = "/v1/openapi.json", tag = "hf-mem-probe", responses(
        (status = 200, description = "The answer", body = Object),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    ))]
    pub(super) fn openapi() {}

    /// Figures for Prometheus; in OpenMetrics text where `Accept` names it.
    #[utoipa::path(get, path = "/metrics", tag = "hf-mem-probe", responses(
        (status = 200, description = "The answer", body = String, content_type = "text/plain"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    ))]
    pub(super) fn metrics() {}
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    const USUAL_WAIT: Duration = Duration::from_secs(3600);

    #[test]
    fn the_contract_changes_only_on_purpose() {
        insta::assert_snapshot!("openapi", json(USUAL_WAIT));
    }

    /// What a route answers stands with the route: a schema that none refers to is one that no
    /// client finds.
    #[test]
    fn every_schema_is_some_routes() {
        fn refer(value: &Value, to: &mut BTreeSet<String>) {
            match value {
                Value::Object(map) => {
                    to.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    map.values().for_each(|value| refer(value, to));
                }
                Value::Array(values) => values.iter().for_each(|value| refer(value, to)),
                _ => {}
            }
        }

        let document: Value = serde_json::from_str(&json(USUAL_WAIT)).unwrap();
        let mut reached = BTreeSet::new();
        refer(&document["paths"], &mut reached);

        loop {
            let mut more = reached.clone();
            for name in &reached {
                refer(
                    document
                        .pointer(&name[1..])
                        .unwrap_or_else(|| panic!("{name} is nowhere")),
                    &mut more,
                );
            }

            if more == reached {
                break;
            }

            reached = more;
        }

        let all = document["components"]["schemas"]
            .as_object()
            .unwrap()
            .keys();
        let all: BTreeSet<_> = all
            .map(|name| format!("#/components/schemas/{name}"))
            .collect();
        assert_eq!(reached, all);
    }

    #[test]
    fn only_a_body_that_may_be_left_out_is_said_to_be() {
        let document: Value = serde_json::from_str(&json(USUAL_WAIT)).unwrap();
        let bodies =
            document["paths"]
                .as_object()
                .unwrap()
                .iter()
                .filter_map(|(path, operations)| {
                    let required = operations["post"]["requestBody"]["required"].as_bool()?;
                    Some((path.as_str(), required))
                });
        let left_out: Vec<_> = bodies
            .filter(|(_, required)| !required)
            .map(|(path, _)| path)
            .collect();

        assert_eq!(left_out, OPTIONAL_BODIES);
    }

    #[test]
    fn longest_wait_is_the_configured_one() {
        let document: Value = serde_json::from_str(&json(Duration::from_secs(60))).unwrap();
        let wait = &document["components"]["schemas"]["LeaseRequest"]["properties"]["wait_seconds"];
        assert_eq!(wait["maximum"].as_f64(), Some(60.0));
    }
}
