//! The plan: the recommended placement, the alternatives, and the reason for the verdict.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::alternatives::{AlternativePlacement, alternatives, illegal, why_no_split};
use super::ask::{Ask, PlacementError};
use super::availability::Availability;
use super::needs::Needs;
use super::order::Grade;
use super::placed::Placement;
use super::pool::Pool;
use super::search::search;
use super::search_summary::grade;
use crate::bytes::Bytes;
use crate::device::DeviceKind;
use crate::engines::{AskedContext, EngineError, PreparedEngine, Workload};
use crate::report::answer::Verdict;
use crate::report::problem::Reason;

/// Contexts that an engine chooses are multiples of this (llama.cpp `common/fit.cpp`).
const CONTEXT_STEP: u64 = 256;

/// A plan: whether and how a model fits.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The reason for the verdict: fits (tight included), insufficient memory, no legal split,
    /// compute capability, leased, no devices.
    pub reason: Reason,
    /// The reason as a sentence that names the obstacle; empty if the model fits.
    pub why: String,
    /// The recommended placement. If none fits: the one that lacks the fewest bytes, if any.
    pub recommended: Option<Placement>,
    /// Other placements, next best first, then illegal splits.
    pub alternatives: Vec<AlternativePlacement>,
    /// Bytes that the recommended placement is short of, summed over devices and host; zero if it
    /// fits.
    pub short_by: Bytes,
    /// The workload and parameters in force; `None` if no device is usable.
    pub settled: Option<ResolvedWorkload>,
    /// Devices that may not be used, with the reason.
    pub passed_over: Vec<PassedOver>,
    /// Assumptions behind the figures that the question does not state.
    pub assumptions: Vec<String>,
    /// Costs and risks.
    pub warnings: Vec<String>,
}

/// The workload and parameters in force for the recommended placement.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedWorkload {
    /// The profile in force.
    pub profile: String,
    /// Every parameter that the figures depend on.
    pub parameters: BTreeMap<String, Value>,
    /// The workload with the engine's defaults filled in.
    pub workload: Workload,
    /// The dtype of the cache, with `auto` resolved.
    pub kv_cache_dtype: String,
    /// Logical cache bytes of one more token.
    pub kv_bytes_per_token: Bytes,
    /// Logical state bytes of one sequence.
    pub state_bytes_per_sequence: Bytes,
}

/// A device that may not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    /// Its UUID.
    pub uuid: String,
    /// Its product name.
    pub name: String,
    /// The reason.
    pub why: String,
}

/// Plans a request on what is available on the host.
///
/// An engine's default context that does not fit becomes what fits, if the engine shrinks it. Next
/// to leases it stays: an engine fits its context to the memory that the driver calls free.
pub fn plan(ask: &Ask<'_>, host: &Availability) -> Result<Plan, PlacementError> {
    let ask = &*ask.with_host_context(host);
    let plan = plan_as_asked(ask, host)?;
    if ask.asked.context.is_some() || matches!(plan.reason, Reason::Fits | Reason::Leased) {
        return Ok(plan);
    }

    match shrunk_context(ask, &plan)? {
        Some(context) => plan_with_context(ask, host, context),
        None => Ok(plan),
    }
}

/// Plans a request with the engine's default context, whatever of it fits.
///
/// Questions that share a host are planned so: a default must not depend on what the others take.
pub(super) fn plan_default(ask: &Ask<'_>, host: &Availability) -> Result<Plan, PlacementError> {
    plan_as_asked(&ask.with_host_context(host), host)
}

/// Returns the context to plan with instead of the engine's default; `None` if the engine does not
/// shrink it.
fn shrunk_context(ask: &Ask<'_>, plan: &Plan) -> Result<Option<u64>, PlacementError> {
    let Some(placement) = &plan.recommended else {
        return Ok(None);
    };
    let Some(first) = placement.ranks.first() else {
        return Ok(None);
    };

    let prepared = ask.prepare(&first.device)?;
    let default = prepared.workload().context;
    let Some(least) = prepared
        .least_default_context()
        .filter(|least| *least < default)
    else {
        return Ok(None);
    };

    // A need that does not grow with the context gains nothing from a shorter one.
    let Some(longest) = placement.max_context else {
        return Ok(None);
    };
    let fitting = longest.min(default);
    Ok(Some((fitting - fitting % CONTEXT_STEP).max(least)))
}

/// Plans with a context that the engine chooses instead of its default.
fn plan_with_context(
    ask: &Ask<'_>,
    host: &Availability,
    context: u64,
) -> Result<Plan, PlacementError> {
    let mut shrunk = ask.clone();
    shrunk.asked.context = Some(AskedContext::Tokens(context));
    let mut plan = plan_as_asked(&shrunk, host)?;
    let why = if plan.reason == Reason::Fits {
        "which fit"
    } else {
        "the least that it accepts"
    };
    plan.assumptions.push(format!(
        "no context is asked for, so the engine shrinks its default to {context} tokens, {why}"
    ));

    Ok(plan)
}

/// Plans a request with its own context or the engine's default.
fn plan_as_asked(ask: &Ask<'_>, host: &Availability) -> Result<Plan, PlacementError> {
    let mut pool = Pool::new(host, &ask.constraints, &ask.policy)?;
    let mut plan = Plan::empty();
    if pool.devices.is_empty() {
        plan.passed_over = passed_over(&pool);
        "no usable device".clone_into(&mut plan.why);
        return Ok(plan);
    }

    let (mut needs, vetoed) = Needs::new(ask, &pool.kinds, host.host)?;
    let usable: Vec<usize> = pool.devices.iter().map(|it| it.kind).collect();
    pool.veto(&vetoed, host);
    plan.passed_over = passed_over(&pool);
    plan.warnings.clone_from(&needs.warnings);

    if pool.devices.is_empty() {
        plan.reason = Reason::ComputeCapability;
        plan.why = usable
            .first()
            .and_then(|kind| vetoed.get(*kind)?.clone())
            .unwrap_or_default();
        return Ok(plan);
    }

    let found = search(&pool, &mut needs)?;
    let first_kind = found.first().map_or_else(
        || pool.devices.first().map_or(0, |it| it.kind),
        |best| best.first,
    );
    let prepared = needs.prepared(first_kind)?;
    plan.settled = Some(ResolvedWorkload::new(prepared));
    plan.assumptions = prepared.assumptions();
    plan.warnings.extend(prepared.warnings());

    let Some(best) = found.first() else {
        plan.reason = Reason::NoLegalSplit;
        plan.why = why_no_split(&needs, &pool, &found);
        plan.alternatives = illegal(&found);
        return Ok(plan);
    };

    let placement = Placement::new(&needs, &pool, best)?;
    if placement
        .ranks
        .iter()
        .map(|rank| rank.required.likely)
        .sum::<Bytes>()
        .overflowed()
    {
        return Err(EngineError::Overflow { what: "need" }.into());
    }

    plan.assume_totals(&placement);
    plan.short_by = placement.short_by();
    plan.alternatives = alternatives(&needs, &pool, &found, best)?;

    if best.rank.grade == Grade::No {
        plan.why = format!(
            "{} needs {} more than is available",
            placement.strategy, plan.short_by
        );
        plan.alternatives.extend(illegal(&found));
        plan.reason = if host.has_leases() && fits_without_leases(ask, host)? {
            Reason::Leased
        } else {
            Reason::InsufficientMemory
        };
    } else {
        plan.reason = Reason::Fits;
    }

    plan.recommended = Some(placement);
    Ok(plan)
}

/// Whether the model would fit, at least tightly, if no lease existed.
fn fits_without_leases(ask: &Ask<'_>, host: &Availability) -> Result<bool, PlacementError> {
    let best = grade(ask, &host.clone().without_leases())?;
    Ok(best.is_some_and(|best| best.grade < Grade::No))
}

impl Plan {
    /// Returns a plan without any usable device.
    fn empty() -> Self {
        Self {
            reason: Reason::NoDevices,
            why: String::new(),
            recommended: None,
            alternatives: Vec::new(),
            short_by: Bytes::ZERO,
            settled: None,
            passed_over: Vec::new(),
            assumptions: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Returns the verdict of the recommended placement.
    pub fn verdict(&self) -> Verdict {
        self.recommended
            .as_ref()
            .map_or(Verdict::DoesNotFit, |placement| placement.verdict)
    }

    /// Adds an assumption for each device whose whole total is counted because the driver's reserve
    /// is unknown.
    fn assume_totals(&mut self, placement: &Placement) {
        let unknown: BTreeSet<&str> = placement
            .ranks
            .iter()
            .filter(|rank| {
                rank.device.reserved_bytes.is_none() && rank.device.kind == DeviceKind::Gpu
            })
            .map(|rank| rank.device.name.as_str())
            .collect();

        for name in unknown {
            self.assumptions.push(format!(
                "the driver's own reserve on {name} is not known; its whole total is counted"
            ));
        }
    }
}

impl ResolvedWorkload {
    fn new(prepared: &dyn PreparedEngine) -> Self {
        Self {
            profile: prepared.profile().to_owned(),
            parameters: prepared.parameters(),
            workload: prepared.workload(),
            kv_cache_dtype: prepared.kv_cache_dtype(),
            kv_bytes_per_token: prepared.kv_bytes_per_token(),
            state_bytes_per_sequence: prepared.state_bytes_per_sequence(),
        }
    }
}

fn passed_over(pool: &Pool<'_>) -> Vec<PassedOver> {
    pool.passed_over
        .iter()
        .map(|(facts, why)| PassedOver {
            uuid: facts.uuid.clone(),
            name: facts.name.clone(),
            why: why.clone(),
        })
        .collect()
}
