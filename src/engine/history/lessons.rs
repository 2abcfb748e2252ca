//! What decisions teach about their contexts. Part of [`History`]; contexts themselves are kept by `contexts`.

use std::sync::Arc;

use super::super::closing::BucketKey;
use super::super::contexts::Lesson;
use super::super::learned::Credit;
use super::History;
use crate::clock::Timestamp;
use crate::experiment::context::Context;
use crate::experiment::decision::Decision;

impl History {
    /// Remembers what a decision was made upon, if the policy learns from that.
    pub(in crate::engine) fn remember(
        &mut self,
        decision: &Decision,
        context: &Context,
        limit: usize,
    ) {
        if self.statistics.regression.is_some() {
            let key = BucketKey::of(decision.at, self.rule_of(decision).window);
            self.contexts.insert(decision, key, context, limit);
        }
    }

    /// Learns a value together with its decision's context, if that is remembered.
    pub(in crate::engine) fn regress(&mut self, decision: &Decision, value: f64, times: i64) {
        let (Some(stored), Some(rule)) = (self.contexts.get_mut(decision), &self.context) else {
            return;
        };
        let earned = self.arms.entry(stored.arm).or_default();
        let detail = Arc::make_mut(&mut earned.detail);
        let mut features = Vec::new();
        rule.encode(&stored.context, &mut features);
        let at = decision.at;
        if stored.lesson == Lesson::Defaulted {
            let default = self.rule.default.unwrap_or_default();
            let value = default;
            detail.regress(
                &self.statistics,
                &features,
                Credit {
                    at,
                    value,
                    times: -1,
                },
            );
        }
        detail.regress(&self.statistics, &features, Credit { at, value, times });
        stored.lesson = if times > 0 {
            Lesson::Learned
        } else {
            Lesson::Open
        };
    }

    /// Learns what the closing of windows brings to contexts: rewards that waited for it, and defaults.
    pub(in crate::engine) fn close_contexts(&mut self, now: Timestamp) {
        let Some(rule) = &self.context else {
            return;
        };
        let mut features = Vec::new();
        for (at, stored) in self.contexts.closing(now) {
            let (value, lesson) = match (stored.lesson, self.rule.default) {
                (Lesson::Pending(value), _) => (value, Lesson::Learned),
                (_, Some(default)) => (default, Lesson::Defaulted),
                (_, None) => continue,
            };
            stored.lesson = lesson;
            rule.encode(&stored.context, &mut features);
            let earned = self.arms.entry(stored.arm).or_default();
            let detail = Arc::make_mut(&mut earned.detail);
            let credit = Credit {
                at,
                value,
                times: 1,
            };
            detail.regress(&self.statistics, &features, credit);
        }
    }
}
