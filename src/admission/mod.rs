//! Every limit on how much one caller or one user may ask of the daemon.
//!
//! Connections, bodies, reads, plans and the turns of users each have one limiter here.

pub(crate) mod connection_limiter;
pub(crate) mod fair_queue;
pub mod limits;
pub(crate) mod per_user_semaphore;
pub(crate) mod plan_pool;
pub(crate) mod read_limits;
pub(crate) mod user_limits;
