//! What clocks, disks and operators do to a process.

use super::world::World;
use super::*;

impl World {
    /// Time passes, or the clock steps.
    pub(super) fn tick(&mut self) {
        let now = self.clock.now();
        let (forward, most) = [
            (true, 2_000),
            (true, 120_000),
            (true, 2 * 3_600_000),
            (false, 5_000),
            (false, 3_600_000),
            (true, 48 * 3_600_000),
        ][self.random.weighted(&[70, 18, 4, 4, 2, 2])];
        let by = self.random.below(most);
        if forward {
            self.clock.advance(by);
        } else {
            self.clock.set(Timestamp::from_millis(now.as_millis() - by));
        }
        if !forward || most > 3_600_000 {
            self.seen.count(
                if forward {
                    "clock step forward"
                } else {
                    "clock step back"
                },
                1,
            );
        }
    }

    pub(super) fn break_disk(&mut self) {
        let some = |random: &mut Random, most| random.below(most) as u32;
        let random = &mut self.random;
        let room = random.percent(40).then(|| random.index(4000));
        let operations = random.percent(40).then(|| some(random, 6));
        self.disk.set_faults(Faults {
            room,
            syncs: some(random, 3),
            directory_syncs: some(random, 2),
            creates: some(random, 2),
            repairs: some(random, 3),
            seals: some(random, 3),
            operations,
        });
    }

    /// The process is gone, in the middle of a commit perhaps.
    pub(super) fn kill(&mut self) {
        self.seen.count("kill", 1);
        if self.random.percent(50) {
            let operations = Some(self.random.below(5) as u32);
            self.disk.set_faults(Faults {
                operations,
                ..Faults::default()
            });
            self.round();
        }
        self.die();
    }

    pub(super) fn cut_power(&mut self) {
        self.seen.count("power cut", 1);
        self.die();
        let random = &mut self.random;
        self.disk.power_cut(|below| random.index(below));
    }

    pub(super) fn stop(&mut self) {
        self.seen.count("stop", 1);
        if let Some(process) = &mut self.process {
            let mut last: Vec<_> = process.commands.try_iter().collect();
            last.push(Command::Stop);
            assert!(process.keeper.round(last));
        }
        self.answers();
        self.die();
    }

    pub(super) fn die(&mut self) {
        if self.process.is_some() {
            self.check_live();
        }
        self.process = None;
        self.disk.set_faults(Faults::default());
        // Clients see their connection end. What they have posted may count or not.
        self.answers();
        assert!(self.in_flight.is_empty());
    }
}
