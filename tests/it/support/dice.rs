//! Random choices that can be made again: a seed, printed by the test that draws from it.

/// A seeded source of random numbers (`SplitMix64`).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The seed of this run: `FAULTS_SEED`, or one that no other run has. Printed, so that a test
    /// that failed can be run again with the same choices.
    pub fn seed(what: &str) -> u64 {
        let seed = std::env::var("FAULTS_SEED").map_or_else(
            |_| {
                let bytes = listen_stream::domain::clock::World::system().bytes();
                u64::from(u32::from_le_bytes(bytes.unwrap()))
            },
            |text| text.parse().expect("FAULTS_SEED is a number"),
        );
        println!("{what}: FAULTS_SEED={seed}");
        seed
    }

    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A whole number in `0..bound`.
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    /// A whole number in `0..bound`, as an index.
    pub fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap()
    }
}

#[test]
fn the_same_seed_makes_the_same_choices() {
    let draw = |seed| {
        let mut dice = Dice::new(seed);
        [dice.below(1000), dice.below(1000), dice.roll()]
    };
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
    let mut dice = Dice::new(7);
    assert!((0..100).all(|_| dice.index(3) < 3));
}
