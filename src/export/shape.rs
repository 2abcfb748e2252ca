//! Which features get a column of their own, and of what type.

use std::sync::Arc;

use crate::experiment::context::{Context, ContextRule, Encoding, Value};

/// What a feature's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureKind {
    /// Numbers.
    Number,
    /// Truth values.
    Boolean,
    /// Texts; or of several kinds, when policy files disagree.
    Text,
}

impl FeatureKind {
    fn of(encoding: &Encoding) -> Self {
        match encoding {
            Encoding::Number(_) | Encoding::Length(_) => Self::Number,
            Encoding::Boolean => Self::Boolean,
            Encoding::OneHot(_) | Encoding::Hashed(_) => Self::Text,
        }
    }
}

/// The features that policy files in the journal name, in the order in which they first do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shape(Vec<(Box<str>, FeatureKind)>);

impl Shape {
    pub(super) fn learn(&mut self, rule: &ContextRule) {
        for feature in rule.features() {
            self.add(&feature.name, FeatureKind::of(&feature.encoding));
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (name, kind) in &other.0 {
            self.add(name, *kind);
        }
    }

    fn add(&mut self, name: &str, kind: FeatureKind) {
        match self.0.iter_mut().find(|(known, _)| **known == *name) {
            None => self.0.push((name.into(), kind)),
            Some((_, known)) if *known != kind => *known = FeatureKind::Text,
            Some(_) => {}
        }
    }

    /// Names and kinds.
    pub fn features(&self) -> impl ExactSizeIterator<Item = (&str, FeatureKind)> {
        self.0.iter().map(|(name, kind)| (&**name, *kind))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Finds the values of a shape's features in contexts.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    shape: Shape,
    /// The names of the last context, and where in it each feature is.
    names: Option<Arc<[Box<str>]>>,
    found: Vec<Option<usize>>,
}

impl Places {
    pub(super) fn new(shape: &Shape) -> Self {
        Self {
            shape: shape.clone(),
            names: None,
            found: vec![None; shape.len()],
        }
    }

    /// The value of each feature; what a context does not have is missing.
    pub(super) fn values<'c>(
        &mut self,
        context: Option<&'c Context>,
    ) -> impl Iterator<Item = &'c Value> {
        if let Some(context) = context {
            self.learn(context);
        }
        let found = self.found.iter();
        found.map(move |place| {
            let there = context.zip(*place);
            there
                .and_then(|(context, place)| context.values.get(place))
                .unwrap_or(&Value::Missing)
        })
    }

    fn learn(&mut self, context: &Context) {
        let known = self.names.as_ref();
        if known.is_some_and(|names| Arc::ptr_eq(names, &context.names)) {
            return;
        }
        self.names = Some(Arc::clone(&context.names));
        for (place, (feature, _)) in self.found.iter_mut().zip(&self.shape.0) {
            *place = context.names.iter().position(|name| name == feature);
        }
    }

    /// Whether a feature has no column.
    pub(super) fn lacks(&self, name: &str) -> bool {
        self.shape.0.iter().all(|(known, _)| **known != *name)
    }
}
