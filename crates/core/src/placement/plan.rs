//! The plan: what is recommended, what else there is, and why it is a no when it is one.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::alternatives::{AlternativeWay, alternatives, illegal, why_no_split};
use super::ask::{Ask, PlacementError};
use super::availability::Availability;
use super::needs::Needs;
use super::order::Grade;
use super::placed::Placement;
use super::pool::Pool;
use super::search::Search;
use super::ways::grade;
use crate::bytes::Bytes;
use crate::device::{DeviceFacts, DeviceKind};
use crate::engines::{EngineError, PreparedEngine, Workload};
use crate::report::answer::Verdict;
use crate::report::problem::Reason;

/// Whether and how a model fits.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Why the answer is what it is: fits (tight included), insufficient memory, no legal split,
    /// compute capability, leased, no devices.
    pub reason: Reason,
    /// The reason in a sentence that names what was in the way; empty where it fits.
    pub why: String,
    /// The way to go; for a "no" the one that came nearest, where there is any at all.
    pub recommended: Option<Placement>,
    /// Other ways, next best first, then those that are not possible.
    pub alternatives: Vec<AlternativeWay>,
    /// Bytes that the recommended way is short of, summed over devices and host; zero where it
    /// fits.
    pub short_by: Bytes,
    /// What the engine settled; `None` where no device could be asked about.
    pub settled: Option<ResolvedWorkload>,
    /// Devices that may not be used, and why.
    pub passed_over: Vec<PassedOver>,
    /// What the figures rest on that was not asked for.
    pub assumptions: Vec<String>,
    /// Costs and dangers.
    pub warnings: Vec<String>,
}

/// What the engine settled for the recommended way.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedWorkload {
    /// The profile in force.
    pub profile: String,
    /// Every parameter that entered the figures.
    pub parameters: BTreeMap<String, Value>,
    /// The workload with the engine's defaults filled in.
    pub workload: Workload,
    /// dtype of the cache after `auto`.
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
    /// Why not.
    pub why: String,
}

/// Whether and how what is asked fits on what is available here.
pub fn plan(ask: &Ask<'_>, here: &Availability) -> Result<Plan, PlacementError> {
    let ask = &*ask.settled(here);
    let mut pool = Pool::new(here, &ask.constraints, &ask.policy)?;
    let mut plan = Plan::empty();
    if pool.devices.is_empty() {
        plan.passed_over = passed_over(&pool);
        "no usable device".clone_into(&mut plan.why);
        return Ok(plan);
    }

    let (mut needs, vetoed) = Needs::new(ask, &pool.kinds, here.host)?;
    let usable: Vec<usize> = pool.devices.iter().map(|it| it.kind).collect();
    pool.veto(&vetoed, here);
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

    let found = Search::run(&pool, &mut needs)?;
    let first_kind = found.first().map_or_else(
        || pool.devices.first().map_or(0, |it| it.kind),
        |best| best.first,
    );
    let prepared = needs.prepared(first_kind)?;
    plan.settled = Some(ResolvedWorkload::of(prepared));
    plan.assumptions = prepared.assumptions();
    plan.warnings.extend(prepared.warnings());

    let Some(best) = found.first() else {
        plan.reason = Reason::NoLegalSplit;
        plan.why = why_no_split(&needs, &pool, &found);
        plan.alternatives = illegal(&found);
        return Ok(plan);
    };

    let placement = Placement::of(&needs, &pool, best)?;
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

    if best.standing.grade == Grade::No {
        plan.why = format!(
            "{} needs {} more than is available",
            placement.strategy, plan.short_by
        );
        plan.alternatives.extend(illegal(&found));
        let unleased = here.has_leases().then(|| here.clone().without_leases());
        plan.reason = match unleased {
            Some(unleased)
                if grade(ask, &unleased)?.is_some_and(|(grade, ..)| grade < Grade::No) =>
            {
                Reason::Leased
            }
            _ => Reason::InsufficientMemory,
        };
    } else {
        plan.reason = Reason::Fits;
    }

    plan.recommended = Some(placement);
    Ok(plan)
}

impl Plan {
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

    /// The verdict: that of the recommended placement.
    pub fn verdict(&self) -> Verdict {
        self.recommended
            .as_ref()
            .map_or(Verdict::DoesNotFit, |placement| placement.verdict)
    }

    /// Says of which devices the whole total was taken because the driver's reserve is not known.
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
    fn of(prepared: &dyn PreparedEngine) -> Self {
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
    let told = |(facts, why): &(&DeviceFacts, String)| PassedOver {
        uuid: facts.uuid.clone(),
        name: facts.name.clone(),
        why: why.clone(),
    };
    pool.passed_over.iter().map(told).collect()
}
