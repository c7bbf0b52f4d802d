//! Where plans are made: small ones at once, large ones beside, a few at a time.
//!
//! A plan for one host takes less than a millisecond and is made where the question is read. One for a hundred declared
//! devices, a frontier or several models may take seconds: made there too, it would keep everybody waiting.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tracing::debug_span;

use crate::api::problem::Reason;
use crate::api::{Problem, Question};
use crate::probe::Here;

/// Up to this many devices a plan is made at once: the largest common host has 16.
const SMALL_HOST: usize = 16;

/// Large plans made at the same time; others wait for their turn, within their callers' deadlines.
const LARGE_AT_ONCE: usize = 2;

/// The threads on which large plans are made.
#[derive(Clone, Debug)]
pub(super) struct Planner {
    turns: Arc<Semaphore>,
}

impl Default for Planner {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(LARGE_AT_ONCE)) }
    }
}

impl Planner {
    /// Makes `plan`, beside if it is `large`.
    ///
    /// A large plan that nobody waits for any more is still brought to its end, and keeps its turn until then: so
    /// callers who ask and leave cannot heap up work.
    pub(super) async fn make<T: Send + 'static>(
        &self,
        large: bool,
        plan: impl FnOnce() -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let span = debug_span!("plan", large);
        if !large {
            return span.in_scope(plan);
        }
        let broken = |what: &str| Problem::new(Reason::Internal, format!("the plan was not made: {what}"));
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| broken("no more plans are made"))?;
        let planned = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            span.in_scope(plan)
        });
        planned.await.map_err(|error| broken(&error.to_string()))?
    }
}

/// Whether the plan for `question` on `here` may take longer than everybody else should wait.
pub(super) fn large(question: &Question, here: &Here) -> bool {
    question.frontier || here.availability.devices.len() > SMALL_HOST
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tokio::sync::mpsc;

    use super::*;

    fn here(devices: usize) -> Here {
        Here::declared(&format!("{devices}x24GiB"), SystemTime::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn many_devices_and_frontiers_are_large() {
        let question = Question::default();
        assert!(!large(&question, &here(SMALL_HOST)));
        assert!(large(&question, &here(SMALL_HOST + 1)));
        assert!(large(&Question { frontier: true, ..Question::default() }, &here(1)));
    }

    #[tokio::test]
    async fn a_small_plan_is_made_on_the_callers_thread_and_a_large_one_on_another() {
        let planner = Planner::default();
        let callers = std::thread::current().id();
        let thread = || Ok(std::thread::current().id());
        assert_eq!(planner.make(false, thread).await.unwrap(), callers);
        assert_ne!(planner.make(true, thread).await.unwrap(), callers);
    }

    #[tokio::test]
    async fn an_abandoned_plan_keeps_its_turn_until_it_is_done() {
        let planner = Planner::default();
        let (started, mut running) = mpsc::unbounded_channel();
        let mut ends = Vec::new();
        for _ in 0..LARGE_AT_ONCE {
            let (end, ended) = std::sync::mpsc::channel::<()>();
            let (planner, started) = (planner.clone(), started.clone());
            let asker = tokio::spawn(async move {
                let plan = move || {
                    started.send(()).unwrap();
                    ended.recv().unwrap();
                    Ok(())
                };
                planner.make(true, plan).await
            });
            running.recv().await.unwrap();
            asker.abort();
            assert!(asker.await.unwrap_err().is_cancelled());
            ends.push(end);
        }
        assert_eq!(planner.turns.available_permits(), 0);
        for end in ends {
            end.send(()).unwrap();
        }
        planner.make(true, || Ok(())).await.unwrap();
    }

    #[tokio::test]
    async fn a_plan_that_panics_is_a_problem_and_gives_its_turn_back() {
        let planner = Planner::default();
        for _ in 0..=LARGE_AT_ONCE {
            let problem = planner.make::<()>(true, || panic!("a bug")).await.unwrap_err();
            assert_eq!(problem.reason, Reason::Internal);
        }
        assert_eq!(planner.turns.available_permits(), LARGE_AT_ONCE);
    }
}
