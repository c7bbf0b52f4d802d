//! Every limit on how much one client or one user may ask of the daemon.
//!
//! Connections, bodies, reads, plans and the order among users each have one limiter here.
//!
//! A request takes its permits in this order: connection slot, body reservation, user's permit,
//! read slot, plan slot. Where a permit's constructor can require the permit before it, it does:
//!
//! - [`connection_limiter`]: a connection slot takes the accept permit, and only a slot can wait to
//!   be served;
//! - [`plan_pool`]: a plan slot takes the user's permit;
//! - [`read_limits`]: the large read slot takes proof that the small one was released.

pub(crate) mod connection_limiter;
pub(crate) mod fair_queue;
pub(crate) mod per_user_semaphore;
pub(crate) mod plan_pool;
pub(crate) mod read_limits;
pub mod server_limits;
pub(crate) mod user_limits;
