//! Which statistics an experiment keeps, and what becomes of them when its policy asks for others. Part of [`History`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::claims::Claims;
use super::super::closing::Closing;
use super::super::contexts::Contexts;
use super::super::keys::RewardKeys;
use super::super::predictions::Predictions;
use super::super::shadows::Shadows;
use super::History;
use crate::experiment::context::ContextRule;
use crate::policy::Statistics;

impl History {
    /// Whether these are the statistics that are kept.
    pub(in crate::engine) fn keeps(
        &self,
        statistics: Statistics,
        context: Option<&ContextRule>,
    ) -> bool {
        let same_encoding = statistics.regression.is_none() || self.context.as_deref() == context;
        self.statistics == statistics && same_encoding
    }

    /// Whether there is anything to be credited.
    pub(in crate::engine) fn has_decisions(&self) -> bool {
        self.arms.values().any(|earned| earned.decisions > 0)
    }

    /// Keeps other statistics from now on. They start from nothing: who wants those of earlier credits folds them again.
    pub(in crate::engine) fn keep(
        &mut self,
        statistics: Statistics,
        context: Option<Arc<ContextRule>>,
    ) {
        let kept = self.keeps(statistics, context.as_deref());
        self.context = context;
        if kept {
            return;
        }
        self.statistics = statistics;
        self.incomplete = !statistics.is_scalar() && self.has_decisions();
        for earned in self.arms.values_mut() {
            earned.detail = Arc::default();
        }
    }

    /// The same experiment before anything was earned in its epoch, to keep these statistics.
    pub(in crate::engine) fn emptied(
        &self,
        statistics: Statistics,
        context: Option<Arc<ContextRule>>,
    ) -> Self {
        Self {
            statistics,
            context,
            claims: Claims::default(),
            entries: BTreeMap::new(),
            predictions: Predictions::default(),
            shadows: Shadows::default(),
            keys: RewardKeys::default(),
            contexts: Contexts::default(),
            metrics: BTreeSet::new(),
            closing: Closing::default(),
            incomplete: false,
            arms: BTreeMap::new(),
            ..self.clone()
        }
    }

    /// Takes over what another fold keeps beyond counts and sums. It has seen all decisions whose window is open, and not all before.
    pub(in crate::engine) fn complete_in_part(&mut self, other: Self) {
        self.contexts = other.contexts;
        self.closing = other.closing;
        self.statistics = other.statistics;
        self.context = other.context;
        self.incomplete = false;
        for (arm, earned) in &mut self.arms {
            let known = other.arms.get(arm);
            earned.detail = known.map_or_else(Arc::default, |known| Arc::clone(&known.detail));
        }
    }
}
