//! Cards by name, with the total that NVML reports for them.
//!
//! Totals are MiB as seen in `nvidia-smi` on current drivers, never computed from the name: a "24 GB" card has 22.5 to
//! 24 GiB. Where ECC changes the total, the factory setting is listed. Sources are public logs; where a reserve stands,
//! it was seen in the v2 reading (or is NVML's total less CUDA's). A reserve that was not seen is `None`.

use crate::bytes::Bytes;

/// A product.
#[derive(Debug)]
pub struct Card {
    /// The driver's name for it.
    pub name: &'static str,
    /// Names it goes by; the first is the one to print.
    pub aliases: &'static [&'static str],
    /// NVML's total.
    pub total: Bytes,
    /// The driver's reserve in MiB, where seen.
    pub reserve_mib: Option<u64>,
    /// CUDA compute capability.
    pub compute_capability: (u32, u32),
    /// Streaming multiprocessors, from the product's data sheet.
    pub multiprocessors: Option<u32>,
    /// How it is joined with its like, where it is sold on such boards.
    pub fabric: Option<Fabric>,
    /// Whether it shares the host's memory.
    pub unified: bool,
}

/// A board of cards joined all to all.
#[derive(Debug)]
pub struct Fabric {
    /// Cards on one board.
    pub board: usize,
    /// Links of each card.
    pub lanes: u32,
}

/// A MIG GPU instance of a card.
#[derive(Debug)]
pub struct MigProfile {
    /// The card's [`Card::name`].
    pub card: &'static str,
    /// `3g.40gb`
    pub profile: &'static str,
    /// NVML's total of it; the profile's own "gb" is a rounded share.
    pub total_mib: u64,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
}

/// A name without what people leave out or put in.
pub fn plain(name: &str) -> String {
    let kept: String = name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    ["nvidia", "geforce", "tesla", "quadro"].iter().fold(kept, |kept, brand| kept.replace(brand, ""))
}

/// The card that goes by `name`.
pub fn find(name: &str) -> Option<&'static Card> {
    let wanted = plain(name);
    let same = |known: &&str| plain(known) == wanted;
    CARDS.iter().find(|card| card.aliases.iter().any(same) || same(&card.name))
}

const fn card(
    name: &'static str,
    aliases: &'static [&'static str],
    total_mib: u64,
    reserve_mib: Option<u64>,
    compute_capability: (u32, u32),
    multiprocessors: Option<u32>,
) -> Card {
    let total = Bytes::mib(total_mib);
    Card { name, aliases, total, reserve_mib, compute_capability, multiprocessors, fabric: None, unified: false }
}

#[expect(clippy::needless_pass_by_value, reason = "a constant function cannot drop what it borrows from")]
const fn on_board(card: Card, board: usize, lanes: u32) -> Card {
    Card { fabric: Some(Fabric { board, lanes }), ..card }
}

const H100: &str = "NVIDIA H100 80GB HBM3";
const H200: &str = "NVIDIA H200";
const A100_40: &str = "NVIDIA A100-SXM4-40GB";
const A100_80: &str = "NVIDIA A100-SXM4-80GB";
const H100_NVL: &str = "NVIDIA H100 NVL";

/// All known cards.
#[rustfmt::skip]
pub const CARDS: &[Card] = &[
    // Blackwell. B300, GB200, GB300: ai-dynamo/aiconfigurator systems/*.yaml; B200: CUDA sees 717 MiB less.
    on_board(card("NVIDIA B200", &["B200", "B200-180GB", "B200-192GB"], 183_359, Some(717), (10, 0), Some(148)), 8, 18),
    on_board(card("NVIDIA GB200", &["GB200"], 189_471, None, (10, 0), None), 72, 18),
    on_board(card("NVIDIA B300", &["B300", "B300-288GB"], 275_040, None, (10, 3), None), 8, 18),
    on_board(card("NVIDIA GB300", &["GB300"], 284_208, None, (10, 3), None), 72, 18),
    card("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", &["RTX-PRO-6000", "RTX-PRO-6000-Blackwell", "PRO-6000",
        "RTX-PRO-6000-96GB", "RTX-PRO-6000-Blackwell-Server-Edition"], 97_887, Some(640), (12, 0), Some(188)),
    card("NVIDIA RTX 6000D", &["RTX-6000D"], 85_651, None, (12, 0), None),
    card("NVIDIA GeForce RTX 5090", &["RTX-5090", "5090"], 32_607, None, (12, 0), Some(170)),
    card("NVIDIA GeForce RTX 5070", &["RTX-5070", "5070"], 12_227, Some(464), (12, 0), Some(48)),
    // GB10 (DGX Spark): NVML gives no figure; MemTotal 127600748 kB on driver 580.173 (XuehaiPan/nvitop#208).
    Card { total: Bytes::new(127_600_748 * 1024), unified: true,
        ..card("NVIDIA GB10", &["GB10", "DGX-Spark", "Spark"], 0, Some(0), (12, 1), Some(48)) },
    // Hopper.
    on_board(card(H100, &["H100-80GB", "H100", "H100-SXM", "H100-SXM5", "H100-80GB-SXM", "H100-80", "H100-SXM5-80GB"],
        81_559, Some(479), (9, 0), Some(132)), 8, 18),
    card("NVIDIA H100 PCIe", &["H100-PCIe", "H100-80GB-PCIe"], 81_559, None, (9, 0), Some(114)),
    card(H100_NVL, &["H100-NVL", "H100-94GB", "H100-NVL-94GB"], 95_830, None, (9, 0), Some(132)),
    on_board(card(H200, &["H200", "H200-141GB", "H200-SXM", "H200-141"], 143_771, Some(614), (9, 0), Some(132)), 8, 18),
    card("NVIDIA H200 NVL", &["H200-NVL"], 143_771, None, (9, 0), Some(132)),
    on_board(card("NVIDIA H20", &["H20", "H20-96GB"], 97_871, None, (9, 0), Some(78)), 8, 18),
    card("NVIDIA GH200 480GB", &["GH200", "GH200-96GB"], 97_871, None, (9, 0), Some(132)),
    // Ada. L20: ECC on.
    card("NVIDIA L4", &["L4", "L4-24GB"], 23_034, None, (8, 9), Some(58)),
    card("NVIDIA L20", &["L20"], 46_068, None, (8, 9), Some(92)),
    card("NVIDIA L40", &["L40", "L40-48GB"], 46_068, None, (8, 9), Some(142)),
    card("NVIDIA L40S", &["L40S", "L40S-48GB"], 46_068, Some(609), (8, 9), Some(142)),
    card("NVIDIA RTX 6000 Ada Generation", &["RTX6000-Ada", "RTX-6000-Ada", "6000-Ada"], 46_068, None, (8, 9), Some(142)),
    card("NVIDIA GeForce RTX 4090", &["RTX-4090", "4090"], 24_564, None, (8, 9), Some(128)),
    card("NVIDIA GeForce RTX 4080 SUPER", &["RTX-4080-SUPER", "4080-SUPER", "4080S"], 16_376, Some(434), (8, 9), Some(80)),
    card("NVIDIA GeForce RTX 4080", &["RTX-4080", "4080"], 16_376, None, (8, 9), Some(76)),
    card("NVIDIA GeForce RTX 4070 Ti SUPER", &["RTX-4070-Ti-SUPER", "4070-Ti-SUPER"], 16_376, None, (8, 9), Some(66)),
    // Ampere. A40, A6000 and A4000: ECC on. A100: rust-nvml/nvml-wrapper#57; A10G: reserve 513 (R535).
    on_board(card(A100_40, &["A100-40GB", "A100-40", "A100-SXM4-40GB", "A100-SXM-40GB"], 40_960, Some(862), (8, 0), Some(108)), 8, 12),
    on_board(card(A100_80, &["A100-80GB", "A100", "A100-80", "A100-SXM4-80GB", "A100-SXM-80GB"], 81_920, Some(862), (8, 0), Some(108)), 8, 12),
    card("NVIDIA A100 80GB PCIe", &["A100-PCIe", "A100-80GB-PCIe"], 81_920, Some(862), (8, 0), Some(108)),
    card("NVIDIA A100-PCIE-40GB", &["A100-40GB-PCIe", "A100-PCIe-40GB"], 40_960, Some(862), (8, 0), Some(108)),
    on_board(card("NVIDIA A800-SXM4-80GB", &["A800", "A800-80GB"], 81_920, None, (8, 0), Some(108)), 8, 8),
    card("NVIDIA A10", &["A10", "A10-24GB"], 23_028, None, (8, 6), Some(72)),
    card("NVIDIA A10G", &["A10G", "A10G-24GB"], 23_028, Some(513), (8, 6), Some(80)),
    card("NVIDIA A40", &["A40", "A40-48GB"], 46_068, None, (8, 6), Some(84)),
    card("NVIDIA RTX A6000", &["A6000", "RTX-A6000"], 46_068, None, (8, 6), Some(84)),
    card("NVIDIA RTX A4000", &["A4000", "RTX-A4000"], 15_352, None, (8, 6), Some(48)),
    card("NVIDIA GeForce RTX 3090", &["RTX-3090", "3090"], 24_576, None, (8, 6), Some(82)),
    card("NVIDIA GeForce RTX 3070", &["RTX-3070", "3070"], 8_192, None, (8, 6), Some(46)),
    // Turing and before. V100: totals of old drivers, the lower ones seen.
    card("Tesla T4", &["T4", "T4-16GB"], 15_360, None, (7, 5), Some(40)),
    card("Quadro RTX 8000", &["RTX-8000", "RTX-8000-48GB"], 49_152, None, (7, 5), Some(72)),
    card("NVIDIA GeForce RTX 2080 SUPER", &["RTX-2080-SUPER", "2080-SUPER"], 8_192, Some(408), (7, 5), Some(48)),
    on_board(card("Tesla V100-SXM2-16GB", &["V100", "V100-16GB", "V100-SXM2", "V100-SXM2-16GB"], 16_152, None, (7, 0), Some(80)), 8, 6),
    card("Tesla V100-PCIE-32GB", &["V100-32GB", "V100-PCIe-32GB"], 32_480, None, (7, 0), Some(80)),
    card("Tesla P100-PCIE-16GB", &["P100", "P100-16GB"], 16_384, Some(103), (6, 0), Some(56)),
    card("NVIDIA GeForce GTX 1080 Ti", &["GTX-1080-Ti", "1080-Ti"], 11_264, None, (6, 1), Some(28)),
];

const fn profile(card: &'static str, profile: &'static str, total_mib: u64, multiprocessors: u32) -> MigProfile {
    MigProfile { card, profile, total_mib, multiprocessors }
}

/// MIG profiles whose memory was seen: captures of utkuozdemir/nvidia_gpu_exporter (H100, H200), NVIDIA/gpu-operator#900
/// (H100 NVL), the MIG user guide's `nvidia-smi mig -lgip` listings (A100).
pub const MIG_PROFILES: &[MigProfile] = &[
    profile(H100, "1g.10gb", 9_984, 16),
    profile(H100, "2g.20gb", 20_096, 32),
    profile(H100, "3g.40gb", 40_448, 60),
    profile(H100_NVL, "1g.12gb", 11_008, 16),
    profile(H100_NVL, "1g.24gb", 22_138, 26),
    profile(H200, "1g.18gb", 16_384, 16),
    profile(H200, "2g.35gb", 33_280, 32),
    profile(H200, "3g.71gb", 71_424, 60),
    profile(A100_40, "1g.5gb", 4_864, 14),
    profile(A100_40, "2g.10gb", 9_984, 28),
    profile(A100_40, "3g.20gb", 20_090, 42),
    profile(A100_80, "1g.10gb", 9_728, 14),
    profile(A100_80, "2g.20gb", 19_968, 28),
    profile(A100_80, "3g.40gb", 40_448, 42),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_means_two_cards() {
        let mut names = Vec::new();
        for card in CARDS {
            let mut own: Vec<_> = card.aliases.iter().map(|alias| plain(alias)).chain([plain(card.name)]).collect();
            own.sort();
            own.dedup();
            names.extend(own);
        }
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn every_profile_belongs_to_a_card() {
        assert!(MIG_PROFILES.iter().all(|profile| CARDS.iter().any(|card| card.name == profile.card)));
    }
}
