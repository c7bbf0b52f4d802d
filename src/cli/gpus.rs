//! `gpus`.
pub(super) fn run(_arguments: &super::arguments::GpusArguments) -> u8 {
    todo!()
}
