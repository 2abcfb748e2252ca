//! The other half of the process: it adopts policy files, learns of changed tallies, and publishes allocations.

use super::world::{World, poll};
use super::*;

fn scalars((arm, tally): &(ArmId, Tally)) -> (ArmId, Tally) {
    let detail = Arc::default();
    (
        *arm,
        Tally {
            detail,
            ..tally.clone()
        },
    )
}

impl World {
    /// The learner looks, and hears of its requests.
    pub(super) fn learn(&mut self) {
        let process = self.process.as_mut().expect("a process");
        if self.random.percent(70) {
            for (experiment, change) in process.handle.changes().take() {
                process.learned.insert(experiment, change.arms);
            }
            // Whatever it was not told of has not changed, but for what has been forgotten because it hardly weighs any more.
            let (state, _) = process.keeper.parts();
            for (experiment, arms) in &process.learned {
                let known = arms.iter().map(scalars);
                assert!(
                    known.eq(state.tallies(*experiment).iter().map(scalars)),
                    "the learner knows something else: {arms:?}"
                );
            }
        }
        if let Some((experiment, version, reply)) = &mut process.allocating
            && let Some(answer) = poll(reply)
        {
            if matches!(answer, Ok(Ok(()))) {
                self.oracle.allocated(*experiment, *version);
                self.seen.count("allocation", 1);
            }
            process.allocating = None;
        }
        if let Some((experiments, reply)) = &mut process.adopting
            && let Some(answer) = poll(reply)
        {
            if matches!(answer, Ok(Ok(()))) {
                process.serving.clone_from(experiments);
                self.seen.count("adoption", 1);
            } else {
                self.seen.count("aborted adoption", 1);
            }
            process.adopting = None;
        }
    }

    /// The process reads its folder of policy files.
    pub(super) fn adopt(&mut self) {
        let experiments: Vec<_> = self
            .files
            .iter()
            .filter(|file| file.there)
            .map(|file| Arc::clone(&file.experiment))
            .collect();
        let (reply, mut prospects) = oneshot::channel();
        let process = self.process.as_mut().expect("a process");
        if process.adopting.is_some() {
            return;
        }
        let asked = Command::Prospects {
            experiments: experiments.clone(),
            reply,
        };
        process.handle.control.send(asked).expect("a channel");
        self.round();
        let prospects = poll(&mut prospects).expect("an answer");
        let prospects = prospects.expect("a process").expect("prospects");
        let process = self.process.as_mut().expect("a process");
        for (experiment, prospect) in experiments.iter().zip(&prospects) {
            let continues = prospect
                .standing
                .as_ref()
                .is_some_and(|standing| standing.epoch == prospect.epoch);
            if continues {
                let arms = process.keeper.parts().0.tallies(experiment.id);
                process.learned.insert(experiment.id, arms);
            }
        }
        let epochs = prospects.iter().map(|prospect| prospect.epoch);
        let experiments: Vec<_> = experiments.into_iter().zip(epochs).collect();
        let (reply, answer) = oneshot::channel();
        let adoption = Box::new(Adoption {
            experiments: experiments.clone(),
            allocations: Vec::new(),
        });
        process
            .handle
            .control
            .send(Command::Adopt { adoption, reply })
            .expect("a channel");
        process.adopting = Some((experiments, answer));
        self.round();
    }

    pub(super) fn edit(&mut self) {
        let index = self.random.index(self.files.len());
        self.files[index].edit(&mut self.random, self.oracle.windows_change);
        self.adopt();
    }

    /// The learner publishes another allocation.
    pub(super) fn allocate(&mut self) {
        let at = self.clock_now();
        let process = self.process.as_mut().expect("a process");
        if process.allocating.is_some() || process.serving.is_empty() {
            return;
        }
        let (experiment, epoch) = &process.serving[self.random.index(process.serving.len())];
        let version = self.oracle.next_allocation(experiment.id);
        let event = Event::Allocated {
            at,
            experiment: experiment.id,
            epoch: *epoch,
            version,
            probabilities: experiment.arms.iter().map(|arm| (arm.id, 0.5)).collect(),
        };
        let (reply, answer) = oneshot::channel();
        process
            .handle
            .control
            .send(Command::Allocated {
                events: vec![event],
                reply,
            })
            .expect("a channel");
        process.allocating = Some((experiment.id, version, answer));
    }
}
