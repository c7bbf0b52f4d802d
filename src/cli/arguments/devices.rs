//! Flags of `gpus` and `free`.

use clap::{Args, ValueEnum};

use super::connection::{ConnectionArguments, HostArguments};

/// Flags of `gpus`.
#[derive(Args, Debug)]
pub struct GpusArguments {
    /// Keep running, and print again after every change.
    #[arg(long)]
    pub watch: bool,
    /// Show how the GPUs are connected (NVLink, PCIe).
    #[arg(long)]
    pub topology: bool,
    /// Show these declared GPUs instead of this host's, such as 8xH100-80GB.
    #[arg(long, value_name = "SPEC|FILE")]
    pub gpus: Option<String>,
    /// Reading without the daemon.
    #[command(flatten)]
    pub host: HostArguments,
    /// Daemon and output.
    #[command(flatten)]
    pub connection: ConnectionArguments,
}

/// Flags of `free`.
#[derive(Args, Debug)]
pub struct FreeArguments {
    /// GPU to read, by UUID, index or PCI address. Required if the host has more than one.
    #[arg(long, value_name = "GPU", alias = "gpu")]
    pub on: Option<String>,
    /// Unit of the printed number, which is rounded down.
    #[arg(long, value_enum, default_value_t = Unit::MiB)]
    pub unit: Unit,
    /// Read these declared GPUs instead of this host's, such as 8xH100-80GB.
    #[arg(long, value_name = "SPEC|FILE")]
    pub gpus: Option<String>,
    /// Reading without the daemon.
    #[command(flatten)]
    pub host: HostArguments,
    /// Daemon and output.
    #[command(flatten)]
    pub connection: ConnectionArguments,
}

/// A unit of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Unit {
    /// Bytes.
    #[value(name = "B")]
    B,
    /// 1024 bytes.
    #[value(name = "KiB")]
    KiB,
    /// 1024 KiB.
    #[value(name = "MiB")]
    MiB,
    /// 1024 MiB.
    #[value(name = "GiB")]
    GiB,
}

impl Unit {
    /// Returns the bytes of one unit.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::B => 1,
            Self::KiB => 1 << 10,
            Self::MiB => 1 << 20,
            Self::GiB => 1 << 30,
        }
    }
}
