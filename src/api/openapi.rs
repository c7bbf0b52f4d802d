//! The OpenAPI document, generated from the wire types. A test compares it with a snapshot, so that
//! reviews show every change.

use std::time::Duration;

use hf_mem_core::report::TogetherAnswer;
use hf_mem_core::report::bounded::MAX_PARTS;
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

/// Returns the document as JSON text, for a daemon whose lease requests can wait up to `max_wait`.
pub fn json(max_wait: Duration) -> String {
    let mut document = Document::openapi();
    bound(&mut document, "LeaseRequest", "wait_seconds", |wait| {
        wait.maximum = Some(max_wait.as_secs().into());
    });

    // Plain structs with string keys, so serializing cannot fail.
    document
        .to_pretty_json()
        .unwrap_or_else(|_| "{}".to_owned())
}

/// The document. The handlers are generic over the service, so `operations` describes the routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "hf-mem-probe",
        version = "1",
        description = "Answers whether and how a Hugging Face model fits on this host's GPUs, \
                       over a Unix socket. Ignore keys that you do not know; a request with an \
                       unknown key is rejected. \"Does not fit\" is an answer (200), failures are \
                       problem documents (RFC 9457)."
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

/// The devices, or why the daemon cannot read them.
#[derive(utoipa::ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum WatchedLine {
    Devices(Box<WatchLine>),
    Problem(WatchProblem),
}

/// Marks the bodies that are optional. All others are required by default.
struct OptionalBodies;

/// The routes with an optional body.
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

/// Sets the bounds that no attribute can express: of values inside an enum's variants, and of the
/// number of an object's properties.
struct InnerBounds;

impl Modify for InnerBounds {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        bound(document, "EngineQuestion", "parameters", |parameters| {
            parameters.max_properties = Some(MAX_PARTS);
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

/// Sets the bounds of the property `name` of a schema, or of each of its alternatives that has one.
fn bound(
    document: &mut utoipa::openapi::OpenApi,
    schema_name: &str,
    name: &str,
    set: impl Fn(&mut Object),
) {
    let Some(schema) = schema(document, schema_name) else {
        return;
    };

    let alternatives = match schema {
        RefOr::T(Schema::OneOf(one_of)) => one_of.items.iter_mut().collect(),
        single => vec![single],
    };

    let properties = alternatives
        .into_iter()
        .filter_map(object)
        .filter_map(|object| object.properties.get_mut(name));
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

    /// Returns whether and how a model fits on this host now. With `questions`: whether all of them
    /// fit at once.
    #[utoipa::path(post, path = "/v1/fits", tag = "hf-mem-probe", request_body = inline(FitsBody),
        responses(
        (
            status = 200, description = "The answer; for `questions`, one with an answer to each",
            body = inline(FitsAnswer)
        ),
        (
            status = "default", description = "A problem",
            body = Problem, content_type = "application/problem+json"
        )
    ))]
    pub(super) fn fits() {}

    /// Returns what a model needs, independent of free memory.
    #[utoipa::path(post, path = "/v1/estimates", tag = "hf-mem-probe",
        request_body = Question, responses(
        (status = 200, description = "The answer", body = Answer),
        (
            status = "default", description = "A problem",
            body = Problem, content_type = "application/problem+json"
        )
    ))]
    pub(super) fn estimates() {}

    /// Returns the last reading of the devices, at most one sampling interval old.
    #[utoipa::path(get, path = "/v1/gpus", tag = "hf-mem-probe", params(
        (
            "fresh" = Option<bool>, Query,
            description = "Whether to wait for a reading that begins now"
        )
    ), responses(
        (status = 200, description = "The answer", body = GpusAnswer),
        (
            status = "default", description = "A problem",
            body = Problem, content_type = "application/problem+json"
        )
    ))]
    pub(super) fn gpus() {}

    /// Streams the devices and lease events, one object a line, until you disconnect or the daemon
    /// stops. A line is sent at every change.
    #[utoipa::path(get, path = "/v1/gpus/watch", tag = "hf-mem-probe", responses(
        (
            status = 200, description = "The answer",
            body = inline(WatchedLine), content_type = "application/x-ndjson"
        ),
        (
            status = "default", description = "A problem",
            body = Problem, content_type = "application/problem+json"
        )
    ))]
    pub(super) fn watch() {}

    /// Lists all leases.
    #[utoipa::path(get, path = "/v1/leases", tag = "hf-mem-probe", responses(
        (status = 200, description = "The answer", body = LeasesAnswer),
        (
            status = "default", description = "A problem",
            body = Problem, content_type = "application/problem+json"
        )
    ))]
    pub(super) fn leases() {}

    /// Answers one question like `/v1/fits` and holds the memory of the answer. The answer has a
    /// `lease` if the lease was granted.
    #[utoipa::path(post, path = "/v1/leases", tag = "hf-mem-probe",
        request_body = LeaseRequest, responses(
        (status = 200, description = "The answer", body = Answer),
        (
            status = "default", description = "A problem",
            body = Problem, content_type = "application/problem+json"
        )
    ))]
    pub(super) fn create_lease() {}

    /// Returns one lease.
    #[utoipa::path(get, path = "/v1/leases/{id}", tag = "hf-mem-probe",
        params((
            "id" = String, Path, description = "The lease's id",
            min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9-]+$"
        )), responses(
        (status = 200, description = "The answer", body = LeaseAnswer),
        (
            status = "default", description = "A problem",
            body = Problem, content_type = "application/problem+json"
        )
    ))]
    pub(super) fn lease() {}

    /// Releases a lease and returns its last state.
    #[utoipa::path(delete, path = "/v1/leases/{id}", tag = "hf-mem-probe",
        params((
            "id" = String, Path, description = "The lease's id",
            min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9-]+$"
        )), responses(
        (status = 200, description = "The answer", body = LeaseAnswer),
        (
            status = "default", description = "A problem",
            body = Problem, content_type = "application/problem+json"
        )
    ))]
    pub(super) fn release_lease() {}

    /// Renews a lease. The body is optional.
    #[utoipa::path(post, path = "/v1/leases/{id}/renew", tag = "hf-mem-probe",
        request_body = RenewRequest, params((
            "id" = String, Path, description = "The lease's id",
            min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9-]+$"
        )), responses(
        (status = 200, description = "The answer", body = LeaseAnswer),
        (
            status = "default", description = "A problem",
            body = Problem, content_type = "application/problem+json"
        )
    ))]
    pub(super) fn renew_lease() {}

    /// Releases the driver, for a GPU reset or a change of MIG. The body is optional.
    #[utoipa::path(post, path = "/v1/nvml/release", tag = "hf-mem-probe",
        request_body = NvmlReleaseRequest, responses(
        (status = 200, description = "The answer", body = NvmlReleaseAnswer),
        (
            status = "default", description = "A problem",
            body = Problem, content_type = "application/problem+json"
        )
    ))]
    pub(super) fn release_nvml() {}

    /// Returns the daemon's health. The status is 200 also when a part is degraded.
    #[utoipa::path(get, path = "/v1/health", tag = "hf-mem-probe", responses(
        (status = 200, description = "The answer", body = HealthAnswer),
        (
            status = "default", description = "A problem",
            body = Problem, content_type = "application/problem+json"
        )
    ))]
    pub(super) fn health() {}

    /// Returns this document.
    #[utoipa::path(get, path = "/v1/openapi.json", tag = "hf-mem-probe", responses(
        (status = 200, description = "The answer", body = Object),
        (
            status = "default", description = "A problem",
            body = Problem, content_type = "application/problem+json"
        )
    ))]
    pub(super) fn openapi() {}

    /// Returns metrics for Prometheus, as OpenMetrics text if `Accept` names that format.
    #[utoipa::path(get, path = "/metrics", tag = "hf-mem-probe", responses(
        (status = 200, description = "The answer", body = String, content_type = "text/plain"),
        (
            status = "default", description = "A problem",
            body = Problem, content_type = "application/problem+json"
        )
    ))]
    pub(super) fn metrics() {}
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    const DEFAULT_WAIT: Duration = Duration::from_secs(3600);

    #[test]
    fn document_matches_snapshot() {
        insta::assert_snapshot!("openapi", json(DEFAULT_WAIT));
    }

    /// A schema that no route refers to is one that no client finds.
    #[test]
    fn every_schema_belongs_to_a_route() {
        fn collect_references(value: &Value, into: &mut BTreeSet<String>) {
            match value {
                Value::Object(map) => {
                    into.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    map.values()
                        .for_each(|value| collect_references(value, into));
                }
                Value::Array(values) => values
                    .iter()
                    .for_each(|value| collect_references(value, into)),
                _ => {}
            }
        }

        let document: Value = serde_json::from_str(&json(DEFAULT_WAIT)).unwrap();
        let mut reached = BTreeSet::new();
        collect_references(&document["paths"], &mut reached);

        loop {
            let mut more = reached.clone();
            for name in &reached {
                collect_references(
                    document
                        .pointer(&name[1..])
                        .unwrap_or_else(|| panic!("{name} does not exist")),
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
    fn only_optional_bodies_are_optional() {
        let document: Value = serde_json::from_str(&json(DEFAULT_WAIT)).unwrap();
        let bodies =
            document["paths"]
                .as_object()
                .unwrap()
                .iter()
                .filter_map(|(path, operations)| {
                    let required = operations["post"]["requestBody"]["required"].as_bool()?;
                    Some((path.as_str(), required))
                });
        let optional: Vec<_> = bodies
            .filter(|(_, required)| !required)
            .map(|(path, _)| path)
            .collect();

        assert_eq!(optional, OPTIONAL_BODIES);
    }

    #[test]
    fn longest_wait_is_configured() {
        let document: Value = serde_json::from_str(&json(Duration::from_secs(60))).unwrap();
        let wait = &document["components"]["schemas"]["LeaseRequest"]["properties"]["wait_seconds"];
        assert_eq!(wait["maximum"].as_f64(), Some(60.0));
    }
}
