//! What outlives reloads of endpoints and arms.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};

use blake3::{Hash, Hasher};

use super::EndpointState;
use crate::experiment::Endpoint;
use crate::experiment::id::{ArmId, ExperimentId};
use crate::experiment::upstream::{HealthRule, Protocol, Scheme, TlsRule, UpstreamRule};
use crate::proxy::endpoint::{Complaints, Reach, Standing};
use crate::proxy::shadow::Slots;
use crate::proxy::tls::watch::Watched;
use crate::proxy::tls::{self, ClientTls};

/// What makes an endpoint: one that is checked in another way is another one, as what the checks say is true of it alone.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Identity {
    endpoint: Endpoint,
    protocol: Protocol,
    tls: TlsRule,
    health: Option<HealthRule>,
}

/// The registry of what outlives reloads: the same address is the same endpoint, across arms and reloads.
#[derive(Debug, Default)]
pub struct Endpoints {
    states: Mutex<HashMap<Identity, Arc<EndpointState>>>,
    tls: Mutex<HashMap<(Protocol, TlsRule), Arc<ClientTls>>>,
    shadows: Mutex<HashMap<ExperimentId, Arc<Slots>>>,
    arms: Mutex<HashMap<(ExperimentId, ArmId), Arc<ArmLoad>>>,
}

/// What outlives reloads of an arm.
#[derive(Debug, Default)]
pub struct ArmLoad {
    /// Its requests in flight from all workers.
    pub in_flight: AtomicUsize,
    /// Whether it had an available endpoint when that was last looked at.
    pub reach: Reach,
}

impl Endpoints {
    /// The state of `endpoint`, new or known. Called when policies are compiled, not by requests.
    ///
    /// # Errors
    ///
    /// The files that its TLS needs.
    pub fn state(
        &self,
        endpoint: &Endpoint,
        protocol: Protocol,
        rule: &UpstreamRule,
    ) -> Result<Arc<EndpointState>, tls::Error> {
        let (rule_of_tls, tls) = if endpoint.scheme == Scheme::Https {
            (rule.tls.clone(), Some(self.tls(protocol, &rule.tls)?))
        } else {
            (TlsRule::default(), None)
        };
        let identity = Identity {
            endpoint: endpoint.clone(),
            protocol,
            tls: rule_of_tls,
            health: rule.health.clone(),
        };
        let mut known = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let index = known.len();
        let state = known.entry(identity).or_insert_with(|| {
            Arc::new(EndpointState {
                endpoint: endpoint.clone(),
                protocol,
                tls,
                authority: endpoint.to_string(),
                in_flight: AtomicUsize::new(0),
                standing: Standing::default(),
                probed: AtomicU64::new(0),
                opening: AtomicUsize::new(0),
                complaints: Complaints::default(),
                index,
            })
        });
        Ok(Arc::clone(state))
    }

    /// The TLS by a rule, with what is in its files now.
    fn tls(&self, protocol: Protocol, rule: &TlsRule) -> Result<Arc<ClientTls>, tls::Error> {
        let mut known = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tls) = known.get(&(protocol, rule.clone())) {
            tls.reload()?;
            return Ok(Arc::clone(tls));
        }
        let tls = Arc::new(ClientTls::new(rule, protocol)?);
        known.insert((protocol, rule.clone()), Arc::clone(&tls));
        Ok(tls)
    }

    /// The TLS of endpoints that are in use: files that no policy file names any more may go.
    fn tls_in_use(&self) -> Vec<Arc<ClientTls>> {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let in_use = states
            .values()
            .filter(|state| Arc::strong_count(state) > 1)
            .filter_map(|state| state.tls.clone());
        let mut all: Vec<Arc<ClientTls>> = in_use.collect();
        all.sort_unstable_by_key(|tls| Arc::as_ptr(tls).addr());
        all.dedup_by_key(|tls| Arc::as_ptr(tls).addr());
        all
    }

    /// What is known of an arm already, or nothing yet. Called when policies are compiled.
    pub fn arm(&self, experiment: ExperimentId, arm: ArmId) -> Arc<ArmLoad> {
        let mut known = self.arms.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry((experiment, arm)).or_default())
    }

    /// The slots of an experiment's shadows, new or known. Called when policies are compiled.
    pub fn shadow_slots(&self, experiment: ExperimentId) -> Arc<Slots> {
        let mut known = self.shadows.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(experiment).or_default())
    }
}

/// Certificates and authorities of endpoints are replaced on the disk, too.
impl Watched for Arc<Endpoints> {
    fn fingerprint(&self) -> Option<Hash> {
        let mut hasher = Hasher::new();
        for tls in self.tls_in_use() {
            // One that cannot be read hides no change of the others.
            match tls.fingerprint() {
                Some(hash) => hasher.update(hash.as_bytes()),
                None => hasher.update(&[0]),
            };
        }
        Some(hasher.finalize())
    }

    fn reload(&self) -> Result<bool, tls::Error> {
        let (mut changed, mut failed) = (false, None);
        for tls in self.tls_in_use() {
            match tls.reload() {
                Ok(new) => changed |= new,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(changed), Err)
    }

    fn tell(&self, outcome: Result<&str, &tls::Error>) {
        match outcome {
            Ok(what) => tracing::info!("TLS to endpoints: {what}"),
            Err(error) => {
                tracing::error!(%error, "TLS to endpoints: not reloaded, the old files go on counting");
            }
        }
    }
}
