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

/// The place of the endpoint that (in flight + 1) / weight is least for, among those that are available; `None` if none is. Of several the
/// first from place `start` on, which the caller moves on with each request.
pub fn choose(endpoints: impl ExactSizeIterator<Item = Choice>, start: usize) -> Option<usize> {
    let count = endpoints.len();
    let start = start.checked_rem(count)?;
    let mut best: Option<(f64, usize, usize)> = None;
    for (index, endpoint) in endpoints.enumerate() {
        if !endpoint.available {
            continue;
        }
        let load = (f64::from(endpoint.in_flight) + 1.0) / endpoint.weight;
        let turn = (index + count - start) % count;
        let better =
            best.is_none_or(|(least, first, _)| load < least || (load == least && turn < first));
        if better {
            best = Some((load, turn, index));
        }
    }
    best.map(|(_, _, index)| index)
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

    /// One at a tenth of its weight is given a request when another has ten.
    #[test]
    fn a_slow_starter_gets_its_part() {
        let slow = Choice {
            weight: 0.1,
            ..plain(0)
        };
        assert_eq!(choose([plain(8), slow].into_iter(), 1), Some(0));
        assert_eq!(choose([plain(10), slow].into_iter(), 0), Some(1));
    }
}
