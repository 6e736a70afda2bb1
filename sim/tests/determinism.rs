//! A seed gives one history.

use kubeedge_sim::{Scenario, run};

#[test]
fn a_seed_played_twice_has_the_same_history() {
    for seed in 0..12 {
        let scenario = Scenario::draw(seed);
        let (first, second) = (run(&scenario), run(&scenario));
        for (index, (one, other)) in first.history.iter().zip(&second.history).enumerate() {
            assert_eq!(one, other, "seed {seed} differs at entry {index}");
        }
        assert_eq!(first.history.len(), second.history.len(), "seed {seed}");
        assert_eq!(first.settled, second.settled, "seed {seed}");
    }
}
