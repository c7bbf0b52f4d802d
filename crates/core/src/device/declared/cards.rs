//! Cards by name, with the total that NVML reports for them.
//!
//! Totals are MiB from public `nvidia-smi` listings of current drivers, never computed from the
//! name: a "24 GB" card has 22.5 to 24 GiB. Some totals are those of the chip's sister cards:
//! some consumer cards of Turing and Ampere, the Quadro RTX 4000 and 5000, TITAN RTX, A5500, A2000,
//! 4090 D, H800, and the 4g, 7g and A30 slices of MIG. If ECC changes the total and both are known,
//! the table has the smaller one. A reserve comes from the v2 reading, or is NVML's total less
//! CUDA's; `None` means that it was not observed. If cards of several sizes share one name, the
//! plain name means the smallest. Multiprocessors and compute capabilities come from the data
//! sheets.

use crate::bytes::Bytes;

/// A product.
#[derive(Debug)]
pub struct Card {
    /// The driver's name, with the size if the name alone is ambiguous.
    pub name: &'static str,
    /// Accepted names; the first one is printed.
    pub aliases: &'static [&'static str],
    /// NVML's total.
    pub total: Bytes,
    /// The driver's reserve in MiB, if observed.
    pub reserve_mib: Option<u64>,
    /// CUDA compute capability.
    pub compute_capability: (u32, u32),
    /// Streaming multiprocessors, from the product's data sheet.
    pub multiprocessors: Option<u32>,
    /// The links on its board, if it is sold on boards.
    pub fabric: Option<Fabric>,
    /// Whether it shares the host's memory.
    pub unified: bool,
}

/// A board of cards that are linked all to all.
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
    /// NVML's total. The "gb" in the profile's name is a rounded share.
    pub total_mib: u64,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
}

/// Normalizes a name: without case, separators and brands.
pub fn plain(name: &str) -> String {
    let kept: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect::<String>()
        .to_ascii_lowercase();

    ["nvidia", "geforce", "tesla", "quadro"]
        .iter()
        .fold(kept, |kept, brand| kept.replace(brand, ""))
}

/// Finds the card with `name`. A size after the name (`RTX-3090-24GB`) must match the card.
pub fn find(name: &str) -> Option<&'static Card> {
    find_exactly(&plain(name)).or_else(|| {
        let (card, size) = name.trim().rsplit_once(['-', '_', ' '])?;
        let sold: u64 = size.to_ascii_lowercase().strip_suffix("gb")?.parse().ok()?;
        find_exactly(&plain(card)).filter(|card| sold_as(card, sold))
    })
}

/// Returns the names of the cards most similar to `name`, one for each card, the most similar
/// first; none if no name is similar.
pub fn nearest(name: &str) -> Vec<&'static str> {
    let wanted = plain(name);
    let mut scored: Vec<_> = CARDS
        .iter()
        .filter_map(|card| most_similar_alias(card, &wanted))
        .filter(|(score, _)| *score > MIN_SIMILARITY)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));

    scored.into_iter().take(3).map(|(_, alias)| alias).collect()
}

/// Returns the name of `card` most similar to a normalized name, with its similarity.
fn most_similar_alias(card: &Card, wanted: &str) -> Option<(f64, &'static str)> {
    card.aliases
        .iter()
        .map(|alias| (strsim::jaro_winkler(wanted, &plain(alias)), *alias))
        .max_by(|a, b| a.0.total_cmp(&b.0))
}

/// The similarity from which on two names are similar.
const MIN_SIMILARITY: f64 = 0.7;

/// Finds the card with exactly this normalized name.
fn find_exactly(wanted: &str) -> Option<&'static Card> {
    CARDS.iter().find(|card| {
        let mut names = card.aliases.iter().chain([&card.name]);
        names.any(|name| plain(name) == wanted)
    })
}

/// Whether `card` may be sold with `gigabytes` on its box. NVML counts at most that, and rarely a
/// tenth less.
fn sold_as(card: &Card, gigabytes: u64) -> bool {
    let total = u128::from(card.total.get());
    let sold = u128::from(gigabytes) * (1 << 30);
    total <= sold && total * 100 >= sold * 88
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
    Card {
        name,
        aliases,
        total,
        reserve_mib,
        compute_capability,
        multiprocessors,
        fabric: None,
        unified: false,
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "a constant function cannot drop what it borrows from"
)]
const fn on_board(card: Card, board: usize, lanes: u32) -> Card {
    Card {
        fabric: Some(Fabric { board, lanes }),
        ..card
    }
}

const H100: &str = "NVIDIA H100 80GB HBM3";
const H200: &str = "NVIDIA H200";
const A100_40: &str = "NVIDIA A100-SXM4-40GB";
const A100_80: &str = "NVIDIA A100-SXM4-80GB";
const H100_NVL: &str = "NVIDIA H100 NVL";

/// All known cards.
#[rustfmt::skip]
pub const CARDS: &[Card] = &[
    // Blackwell. B300, GB200, GB300: ai-dynamo/aiconfigurator systems/*.yaml; B200: CUDA sees 717
    // MiB less.
    on_board(card("NVIDIA B200", &["B200", "B200-180GB", "B200-192GB"], 183_359, Some(717), (10, 0), Some(148)), 8, 18),
    on_board(card("NVIDIA GB200", &["GB200"], 189_471, None, (10, 0), None), 72, 18),
    on_board(card("NVIDIA B300", &["B300", "B300-288GB"], 275_040, None, (10, 3), None), 8, 18),
    on_board(card("NVIDIA GB300", &["GB300"], 284_208, None, (10, 3), None), 72, 18),
    card("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", &["RTX-PRO-6000", "RTX-PRO-6000-Blackwell", "PRO-6000",
        "RTX-PRO-6000-96GB", "RTX-PRO-6000-Blackwell-Server-Edition"], 97_887, Some(640), (12, 0), Some(188)),
    card("NVIDIA RTX 6000D", &["RTX-6000D"], 85_651, None, (12, 0), None),
    card("NVIDIA RTX PRO 5000 Blackwell", &["RTX-PRO-5000", "PRO-5000"], 48_935, None, (12, 0), Some(110)),
    card("NVIDIA RTX PRO 4500 Blackwell", &["RTX-PRO-4500", "PRO-4500"], 32_623, None, (12, 0), Some(82)),
    card("NVIDIA RTX PRO 4000 Blackwell", &["RTX-PRO-4000", "PRO-4000"], 24_467, None, (12, 0), Some(70)),
    card("NVIDIA RTX PRO 2000 Blackwell", &["RTX-PRO-2000", "PRO-2000"], 16_311, None, (12, 0), None),
    card("NVIDIA GeForce RTX 5090", &["RTX-5090", "5090"], 32_607, None, (12, 0), Some(170)),
    card("NVIDIA GeForce RTX 5080", &["RTX-5080", "5080"], 16_303, None, (12, 0), Some(84)),
    card("NVIDIA GeForce RTX 5070 Ti", &["RTX-5070-Ti", "5070-Ti"], 16_303, None, (12, 0), Some(70)),
    card("NVIDIA GeForce RTX 5070", &["RTX-5070", "5070"], 12_227, Some(464), (12, 0), Some(48)),
    card("NVIDIA GeForce RTX 5060 Ti", &["RTX-5060-Ti", "5060-Ti"], 8_151, None, (12, 0), Some(36)),
    card("NVIDIA GeForce RTX 5060 Ti 16GB", &["RTX-5060-Ti-16GB", "5060-Ti-16GB"], 16_311, None, (12, 0), Some(36)),
    card("NVIDIA GeForce RTX 5060", &["RTX-5060", "5060"], 8_151, None, (12, 0), Some(30)),
    // GB10 (DGX Spark): NVML gives no figure; MemTotal 127600748 kB on driver 580.173
    // (XuehaiPan/nvitop#208).
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
    on_board(card("NVIDIA H800", &["H800", "H800-SXM"], 81_559, None, (9, 0), Some(132)), 8, 8),
    card("NVIDIA H800 PCIe", &["H800-PCIe"], 81_559, None, (9, 0), Some(114)),
    card("NVIDIA GH200 480GB", &["GH200", "GH200-96GB"], 97_871, None, (9, 0), Some(132)),
    // Ada. L4, L20, L40, L40S, 6000: ECC on; the other workstation cards: off.
    card("NVIDIA L4", &["L4", "L4-24GB"], 23_034, None, (8, 9), Some(58)),
    card("NVIDIA L20", &["L20"], 46_068, None, (8, 9), Some(92)),
    card("NVIDIA L40", &["L40", "L40-48GB"], 46_068, None, (8, 9), Some(142)),
    card("NVIDIA L40S", &["L40S", "L40S-48GB"], 46_068, Some(609), (8, 9), Some(142)),
    card("NVIDIA RTX 6000 Ada Generation", &["RTX6000-Ada", "RTX-6000-Ada", "6000-Ada"], 46_068, None, (8, 9), Some(142)),
    card("NVIDIA GeForce RTX 4090", &["RTX-4090", "4090"], 24_564, None, (8, 9), Some(128)),
    card("NVIDIA GeForce RTX 4080 SUPER", &["RTX-4080-SUPER", "4080-SUPER", "4080S"], 16_376, Some(434), (8, 9), Some(80)),
    card("NVIDIA GeForce RTX 4080", &["RTX-4080", "4080"], 16_376, None, (8, 9), Some(76)),
    card("NVIDIA RTX 5000 Ada Generation", &["RTX5000-Ada", "RTX-5000-Ada", "5000-Ada"], 32_760, None, (8, 9), Some(100)),
    card("NVIDIA RTX 4500 Ada Generation", &["RTX4500-Ada", "RTX-4500-Ada", "4500-Ada"], 24_570, None, (8, 9), Some(60)),
    card("NVIDIA RTX 4000 Ada Generation", &["RTX4000-Ada", "RTX-4000-Ada", "4000-Ada"], 20_475, None, (8, 9), Some(48)),
    card("NVIDIA RTX 4000 SFF Ada Generation", &["RTX-4000-SFF-Ada", "4000-SFF-Ada"], 20_475, None, (8, 9), Some(48)),
    card("NVIDIA RTX 2000 Ada Generation", &["RTX2000-Ada", "RTX-2000-Ada", "2000-Ada"], 16_380, None, (8, 9), Some(22)),
    card("NVIDIA GeForce RTX 4090 D", &["RTX-4090-D", "4090-D"], 24_564, None, (8, 9), Some(114)),
    card("NVIDIA GeForce RTX 4070 Ti SUPER", &["RTX-4070-Ti-SUPER", "4070-Ti-SUPER"], 16_376, None, (8, 9), Some(66)),
    card("NVIDIA GeForce RTX 4070 Ti", &["RTX-4070-Ti", "4070-Ti"], 12_282, None, (8, 9), Some(60)),
    card("NVIDIA GeForce RTX 4070 SUPER", &["RTX-4070-SUPER", "4070-SUPER"], 12_282, None, (8, 9), Some(56)),
    card("NVIDIA GeForce RTX 4070", &["RTX-4070", "4070"], 12_282, None, (8, 9), Some(46)),
    card("NVIDIA GeForce RTX 4060 Ti", &["RTX-4060-Ti", "4060-Ti"], 8_188, None, (8, 9), Some(34)),
    card("NVIDIA GeForce RTX 4060 Ti 16GB", &["RTX-4060-Ti-16GB", "4060-Ti-16GB"], 16_380, None, (8, 9), Some(34)),
    card("NVIDIA GeForce RTX 4060", &["RTX-4060", "4060"], 8_188, None, (8, 9), Some(24)),
    // Ampere. A40, A6000 and A4000: ECC on. A100: rust-nvml/nvml-wrapper#57; A10G: reserve 513
    // (R535).
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
    card("NVIDIA A30", &["A30", "A30-24GB"], 24_576, Some(519), (8, 0), Some(56)),
    card("NVIDIA A16", &["A16"], 15_356, None, (8, 6), Some(10)),
    card("NVIDIA A2", &["A2"], 15_356, None, (8, 6), Some(10)),
    card("NVIDIA RTX A5500", &["A5500", "RTX-A5500"], 24_564, None, (8, 6), Some(80)),
    card("NVIDIA RTX A5000", &["A5000", "RTX-A5000"], 24_564, None, (8, 6), Some(64)),
    card("NVIDIA RTX A4500", &["A4500", "RTX-A4500"], 20_470, None, (8, 6), Some(56)),
    card("NVIDIA RTX A2000 12GB", &["A2000-12GB", "RTX-A2000-12GB"], 12_282, None, (8, 6), Some(26)),
    card("NVIDIA RTX A2000", &["A2000", "RTX-A2000"], 6_138, None, (8, 6), Some(26)),
    card("NVIDIA GeForce RTX 3090 Ti", &["RTX-3090-Ti", "3090-Ti"], 24_564, None, (8, 6), Some(84)),
    card("NVIDIA GeForce RTX 3090", &["RTX-3090", "3090"], 24_576, None, (8, 6), Some(82)),
    card("NVIDIA GeForce RTX 3080 Ti", &["RTX-3080-Ti", "3080-Ti"], 12_288, None, (8, 6), Some(80)),
    card("NVIDIA GeForce RTX 3080", &["RTX-3080", "3080"], 10_240, None, (8, 6), Some(68)),
    card("NVIDIA GeForce RTX 3080 12GB", &["RTX-3080-12GB", "3080-12GB"], 12_288, None, (8, 6), Some(70)),
    card("NVIDIA GeForce RTX 3070 Ti", &["RTX-3070-Ti", "3070-Ti"], 8_192, None, (8, 6), Some(48)),
    card("NVIDIA GeForce RTX 3070", &["RTX-3070", "3070"], 8_192, None, (8, 6), Some(46)),
    card("NVIDIA GeForce RTX 3060 Ti", &["RTX-3060-Ti", "3060-Ti"], 8_192, None, (8, 6), Some(38)),
    card("NVIDIA GeForce RTX 3060", &["RTX-3060", "3060"], 12_288, None, (8, 6), Some(28)),
    card("NVIDIA GeForce RTX 3050", &["RTX-3050", "3050"], 8_192, None, (8, 6), Some(20)),
    // Turing and before. V100 with 16 GB and PCIe: totals of old drivers, the lower ones seen.
    card("Tesla T4", &["T4", "T4-16GB"], 15_360, None, (7, 5), Some(40)),
    card("Quadro RTX 8000", &["RTX-8000", "RTX-8000-48GB"], 49_152, None, (7, 5), Some(72)),
    card("Quadro RTX 6000", &["RTX-6000", "Quadro-RTX-6000"], 24_576, None, (7, 5), Some(72)),
    card("Quadro RTX 5000", &["RTX-5000", "Quadro-RTX-5000"], 16_384, None, (7, 5), Some(48)),
    card("Quadro RTX 4000", &["RTX-4000", "Quadro-RTX-4000"], 8_192, None, (7, 5), Some(36)),
    card("NVIDIA TITAN RTX", &["TITAN-RTX"], 24_576, None, (7, 5), Some(72)),
    card("NVIDIA GeForce RTX 2080 Ti", &["RTX-2080-Ti", "2080-Ti"], 11_264, None, (7, 5), Some(68)),
    card("NVIDIA GeForce RTX 2080", &["RTX-2080", "2080"], 8_192, None, (7, 5), Some(46)),
    card("NVIDIA GeForce RTX 2070 SUPER", &["RTX-2070-SUPER", "2070-SUPER"], 8_192, None, (7, 5), Some(40)),
    card("NVIDIA GeForce RTX 2070", &["RTX-2070", "2070"], 8_192, None, (7, 5), Some(36)),
    card("NVIDIA GeForce RTX 2060 SUPER", &["RTX-2060-SUPER", "2060-SUPER"], 8_192, None, (7, 5), Some(34)),
    card("NVIDIA GeForce RTX 2060", &["RTX-2060", "2060"], 6_144, None, (7, 5), Some(30)),
    card("NVIDIA GeForce GTX 1660 Ti", &["GTX-1660-Ti", "1660-Ti"], 6_144, None, (7, 5), Some(24)),
    card("NVIDIA GeForce GTX 1660 SUPER", &["GTX-1660-SUPER", "1660-SUPER"], 6_144, None, (7, 5), Some(22)),
    card("NVIDIA GeForce GTX 1660", &["GTX-1660", "1660"], 6_144, None, (7, 5), Some(22)),
    card("NVIDIA GeForce RTX 2080 SUPER", &["RTX-2080-SUPER", "2080-SUPER"], 8_192, Some(408), (7, 5), Some(48)),
    on_board(card("Tesla V100-SXM2-16GB", &["V100", "V100-16GB", "V100-SXM2", "V100-SXM2-16GB"], 16_152, None, (7, 0), Some(80)), 8, 6),
    on_board(card("Tesla V100-SXM2-32GB", &["V100-SXM2-32GB"], 32_768, None, (7, 0), Some(80)), 8, 6),
    card("Tesla V100-PCIE-32GB", &["V100-32GB", "V100-PCIe-32GB"], 32_480, None, (7, 0), Some(80)),
    card("Tesla P100-PCIE-16GB", &["P100", "P100-16GB"], 16_384, Some(103), (6, 0), Some(56)),
    card("NVIDIA GeForce GTX 1080 Ti", &["GTX-1080-Ti", "1080-Ti"], 11_264, None, (6, 1), Some(28)),
];

const fn profile(
    card: &'static str,
    profile: &'static str,
    total_mib: u64,
    multiprocessors: u32,
) -> MigProfile {
    MigProfile {
        card,
        profile,
        total_mib,
        multiprocessors,
    }
}

/// MIG profiles whose memory was seen: captures of utkuozdemir/nvidia_gpu_exporter (H100, H200),
/// NVIDIA/gpu-operator#900 (H100 NVL), the MIG user guide's `nvidia-smi mig -lgip` listings (A100,
/// A30, and four slices of an H100).
pub const MIG_PROFILES: &[MigProfile] = &[
    profile(H100, "1g.10gb", 9_984, 16),
    profile(H100, "2g.20gb", 20_096, 32),
    profile(H100, "3g.40gb", 40_448, 60),
    profile(H100, "4g.40gb", 40_448, 64),
    profile(H100_NVL, "1g.12gb", 11_008, 16),
    profile(H100_NVL, "1g.24gb", 22_138, 26),
    profile(H200, "1g.18gb", 16_384, 16),
    profile(H200, "2g.35gb", 33_280, 32),
    profile(H200, "3g.71gb", 71_424, 60),
    profile(A100_40, "1g.5gb", 4_864, 14),
    profile(A100_40, "2g.10gb", 9_984, 28),
    profile(A100_40, "3g.20gb", 20_090, 42),
    profile(A100_40, "4g.20gb", 20_090, 56),
    profile(A100_40, "7g.40gb", 40_448, 98),
    profile(A100_80, "1g.10gb", 9_728, 14),
    profile(A100_80, "2g.20gb", 19_968, 28),
    profile(A100_80, "3g.40gb", 40_448, 42),
    profile(A100_80, "4g.40gb", 40_448, 56),
    profile("NVIDIA A30", "1g.6gb", 5_949, 14),
    profile("NVIDIA A30", "2g.12gb", 11_970, 28),
    profile("NVIDIA A30", "4g.24gb", 24_002, 56),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn card_names_are_unique() {
        let mut names = Vec::new();
        for card in CARDS {
            let mut own: Vec<_> = card
                .aliases
                .iter()
                .map(|alias| plain(alias))
                .chain([plain(card.name)])
                .collect();
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
    fn size_suffix_must_match_card() {
        for (name, found) in [
            ("RTX-3090-24GB", Some("NVIDIA GeForce RTX 3090")),
            ("L4 24GB", Some("NVIDIA L4")),
            ("5060-Ti-16GB", Some("NVIDIA GeForce RTX 5060 Ti 16GB")),
            ("RTX-5060-Ti-8GB", Some("NVIDIA GeForce RTX 5060 Ti")),
            ("A6000-48GB", Some("NVIDIA RTX A6000")),
            ("B200-192GB", Some("NVIDIA B200")),
            ("H100-96GB", None),
            ("RTX-3090-48GB", None),
        ] {
            assert_eq!(find(name).map(|card| card.name), found, "{name}");
        }
    }

    /// Returns the table of docs/cards.md below its introduction.
    fn table() -> String {
        let mut table =
            "| name | other names | as the driver has it | total, MiB | kept by the driver, MiB | compute | MIG |\n\
                         | --- | --- | --- | --- | --- | --- | --- |\n"
                .to_owned();
        for card in CARDS {
            let (name, others) = card.aliases.split_first().unwrap();
            let others: Vec<_> = others.iter().map(|name| format!("`{name}`")).collect();
            let kept = card
                .reserve_mib
                .map_or_else(|| "not seen".to_owned(), |mib| mib.to_string());
            let (major, minor) = card.compute_capability;
            let profiles = MIG_PROFILES
                .iter()
                .filter(|profile| profile.card == card.name);
            let profiles: Vec<_> = profiles
                .map(|profile| format!("`{}`", profile.profile))
                .collect();

            table.push_str(&format!(
                "| `{name}` | {} | {} | {} | {kept} | {major}.{minor} | {} |\n",
                others.join(", "),
                card.name,
                card.total.get() >> 20,
                profiles.join(", ")
            ));
        }

        table
    }

    /// Run this with `UPDATE_CARDS=1` after a change of the table.
    #[test]
    fn page_matches_table() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cards.md");
        let page = std::fs::read_to_string(&path).unwrap();
        let (introduction, kept) = page.split_at(page.find("| name |").unwrap());
        if std::env::var_os("UPDATE_CARDS").is_some() {
            std::fs::write(&path, introduction.to_owned() + &table()).unwrap();
            return;
        }

        assert!(
            kept == table(),
            "docs/cards.md is out of date: run this test with UPDATE_CARDS=1"
        );
    }

    #[test]
    fn every_profile_belongs_to_a_card() {
        assert!(
            MIG_PROFILES
                .iter()
                .all(|profile| CARDS.iter().any(|card| card.name == profile.card))
        );
    }
}
