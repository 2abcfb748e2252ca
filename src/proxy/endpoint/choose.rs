//! Which endpoint of an arm gets the next request: the one with the fewest in flight for its weight.

/// An endpoint that may be chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// Requests that it has not answered yet, over all workers.
    pub in_flight: u32,
    /// Whether it may get requests.
    pub available: bool,
    /// How much of its share it gets, in (0, 1].
    pub weight: f64,
}

/// The place of the available endpoint with the fewest requests in flight; `None` if none is available. Of several the first from place `turn`
/// on, which the caller moves on with each request.
///
/// One that gets a part of its share only takes part in that part of the turns that are its own, and is then preferred. Dividing its load by its
/// weight would give it nothing at all while all others are idle. Where no other is available, that is what decides.
pub fn choose(
    endpoints: impl ExactSizeIterator<Item = Choice> + Clone,
    turn: usize,
) -> Option<usize> {
    let count = endpoints.len();
    let start = turn.checked_rem(count)?;
    let distance = |index: usize| (index + count - start) % count;
    let is_full = |endpoint: Choice| endpoint.available && endpoint.weight >= 1.0;
    if !endpoints.clone().any(is_full) {
        return lightest(endpoints, distance);
    }
    let takes_part = |(index, endpoint): &(usize, Choice)| {
        endpoint.available
            && (endpoint.weight >= 1.0 || is_its_turn(*index, count, turn, endpoint.weight))
    };
    let load = |(index, endpoint): (usize, Choice)| {
        let preferred = if endpoint.weight < 1.0 {
            0
        } else {
            1 + distance(index)
        };
        ((endpoint.in_flight, preferred), index)
    };
    let candidates = endpoints.enumerate().filter(takes_part);
    candidates.map(load).min().map(|(_, index)| index)
}

/// Whether a turn belongs to the part that an endpoint of this weight has of all turns. Multiples of the golden ratio spread evenly, and are in step
/// with no number of endpoints.
fn is_its_turn(index: usize, count: usize, turn: usize, weight: f64) -> bool {
    let spread = (turn as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let place = spread as f64 / 2_f64.powi(64) * count as f64;
    (0.0..weight).contains(&(place - index as f64))
}

/// The available endpoint that (in flight + 1) / weight is least for; of several the nearest.
fn lightest(
    endpoints: impl Iterator<Item = Choice>,
    distance: impl Fn(usize) -> usize,
) -> Option<usize> {
    let load = |endpoint: Choice| (f64::from(endpoint.in_flight) + 1.0) / endpoint.weight;
    let available = endpoints
        .enumerate()
        .filter(|(_, endpoint)| endpoint.available);
    let least = available.min_by(|(one, first), (other, second)| {
        let by_load = load(*first).total_cmp(&load(*second));
        by_load.then_with(|| distance(*one).cmp(&distance(*other)))
    });
    least.map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(in_flight: u32) -> Choice {
        Choice {
            in_flight,
            available: true,
            weight: 1.0,
        }
    }

    #[test]
    fn the_least_busy_one_is_chosen_and_ties_take_turns() {
        let all = [plain(2), plain(1), plain(3), plain(1)];
        let chosen: Vec<_> = (0..8).map(|start| choose(all.into_iter(), start)).collect();
        let turns = [1, 1, 3, 3, 1, 1, 3, 3].map(Some);
        assert_eq!(chosen, turns);
        let idle = [plain(0); 3];
        for start in 0..9 {
            assert_eq!(choose(idle.into_iter(), start), Some(start % 3));
        }
    }

    #[test]
    fn what_is_not_available_is_not_chosen() {
        let gone = |choice| Choice {
            available: false,
            ..choice
        };
        let all = [gone(plain(0)), plain(9), gone(plain(0))];
        for start in 0..3 {
            assert_eq!(choose(all.into_iter(), start), Some(1));
        }
        assert_eq!(choose([gone(plain(0))].into_iter(), 0), None);
        assert_eq!(choose(std::iter::empty(), 7), None);
    }

    /// How often each was chosen in so many turns in which this many requests are in flight at the others.
    fn shares(count: usize, weight: f64, busy: u32) -> Vec<u32> {
        let mut chosen = vec![0; count];
        for turn in 0..100_000 {
            let endpoints = (0..count).map(|index| Choice {
                weight: if index == 1 { weight } else { 1.0 },
                ..plain(if index == 1 { 0 } else { busy })
            });
            chosen[choose(endpoints, turn).unwrap()] += 1;
        }
        chosen
    }

    #[test]
    fn a_slow_starter_gets_its_part_however_busy_the_others_are() {
        for count in [2, 3, 10] {
            for weight in [0.1, 0.5, 0.9] {
                for busy in [0, 5] {
                    let chosen = shares(count, weight, busy);
                    let share = f64::from(chosen[1]) / 1e5 * count as f64;
                    assert!((share - weight).abs() < 0.01, "{chosen:?} {weight}");
                }
            }
        }
    }

    #[test]
    fn a_slow_starter_that_is_busier_is_left_alone() {
        let slow = Choice {
            weight: 0.9,
            ..plain(1)
        };
        for turn in 0..100 {
            assert_eq!(choose([plain(0), slow].into_iter(), turn), Some(0));
        }
    }

    #[test]
    fn slow_starters_that_are_alone_serve_by_their_weight() {
        let slow = |in_flight, weight| Choice {
            weight,
            ..plain(in_flight)
        };
        for turn in 0..100 {
            assert_eq!(choose([slow(3, 0.1)].into_iter(), turn), Some(0));
            // 4 / .9 is less than 1 / .1.
            let both = choose([slow(3, 0.9), slow(0, 0.1)].into_iter(), turn);
            assert_eq!(both, Some(0));
            let hung = choose([slow(50, 0.9), slow(0, 0.9)].into_iter(), turn);
            assert_eq!(hung, Some(1));
        }
    }

    #[test]
    fn slow_starters_that_are_alone_and_equal_take_turns() {
        let slow = Choice {
            weight: 0.1,
            ..plain(0)
        };
        for turn in 0..9 {
            assert_eq!(choose([slow; 3].into_iter(), turn), Some(turn % 3));
        }
    }
}
