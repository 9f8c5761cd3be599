//! Which backend runs which layer, and why not another.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::{BACKEND, BackendId, Capabilities, LayerId, Registration, Registry, Rejection, Speed};
use crate::checkpoint::Checkpoint;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::quant_linear::{LayerInfo, QuantLinear};
use crate::tensor::DType;

/// Plans `checkpoint` with the backends linked into this program. See [`PlanRequest`] for more choices.
///
/// # Errors
/// As [`PlanRequest::plan`].
pub fn plan(checkpoint: &Checkpoint, backend: BACKEND, device: Device) -> Result<Plan> {
    PlanRequest::new(backend, device).plan(checkpoint)
}

/// What is asked of a plan.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PlanRequest {
    /// The backends to choose from.
    pub registry: Registry,
    /// The backend by name, asked alone; or [`BACKEND::Auto`], which asks all, best first, for each layer.
    pub backend: BACKEND,
    /// Where the layers are to run.
    pub device: Device,
    /// The type that x will have, where that is known: a backend that would narrow it is not chosen.
    pub x_dtype: Option<DType>,
    /// The slowest backend that will do. With [`Speed::Native`] a fallback is refused instead of warned about.
    pub min_speed: Speed,
}

impl PlanRequest {
    /// A request to the backends linked into this program, for x of any type, at any speed.
    pub fn new(backend: BACKEND, device: Device) -> Self {
        Self { registry: Registry::linked(), backend, device, x_dtype: None, min_speed: Speed::Fallback }
    }

    /// Chooses a backend for each layer.
    ///
    /// # Errors
    /// - [`Error::EmptyRegistry`], [`Error::BackendNotLinked`], [`Error::DuplicateBackend`];
    /// - [`Error::Rejected`] where the backend asked for by name cannot run a layer;
    /// - [`Error::NoBackend`] where `auto` finds none for a layer, with everyone's reason.
    pub fn plan(&self, checkpoint: &Checkpoint) -> Result<Plan> {
        let layers: Vec<&LayerInfo> = checkpoint.layers().iter().map(QuantLinear::info).collect();
        let answers = self.ask(&layers)?;
        let chosen: Vec<Option<usize>> = (0..layers.len())
            .map(|layer| answers.iter().position(|answer| answer.verdict(layer).is_ok()))
            .collect();
        let report = self.report(&layers, &answers, &chosen);

        if let Some(layer) = chosen.iter().position(Option::is_none) {
            let name = layers.get(layer).map(|info| info.name.to_string()).unwrap_or_default();
            return Err(match (self.backend.name(), answers.first()) {
                (Some(_), Some(answer)) => Error::Rejected {
                    backend: answer.registration.id,
                    subject: match answer.capabilities {
                        Ok(_) => format!("layer `{name}`"),
                        Err(_) => format!("on {}", self.device),
                    },
                    rejection: Box::new(answer.verdict(layer).err().unwrap_or(Rejection::TooSlow)),
                },
                _ => Error::NoBackend { layer: name, device: self.device.clone(), report: Box::new(report) },
            });
        }
        for warning in &report.warnings {
            tracing::warn!(device = %self.device, "{warning}");
        }
        let backends: Vec<Planned> = answers
            .into_iter()
            .enumerate()
            .filter_map(|(index, answer)| {
                let layers: Vec<LayerId> =
                    (0..chosen.len()).filter(|&layer| chosen[layer] == Some(index)).map(LayerId).collect();
                let capabilities = answer.capabilities.ok()?;
                (!layers.is_empty()).then_some(Planned {
                    registration: answer.registration,
                    capabilities,
                    layers,
                })
            })
            .collect();
        let names = layers.iter().map(|info| Arc::clone(&info.name)).collect();
        Ok(Plan { device: self.device.clone(), names, backends, report })
    }

    /// Asks without choosing: what every backend of the request says to every layer.
    ///
    /// # Errors
    /// [`Error::EmptyRegistry`], [`Error::BackendNotLinked`], [`Error::DuplicateBackend`].
    pub fn explain(&self, checkpoint: &Checkpoint) -> Result<PlanReport> {
        let layers: Vec<&LayerInfo> = checkpoint.layers().iter().map(QuantLinear::info).collect();
        let answers = self.ask(&layers)?;
        let chosen: Vec<Option<usize>> = (0..layers.len())
            .map(|layer| answers.iter().position(|answer| answer.verdict(layer).is_ok()))
            .collect();
        Ok(self.report(&layers, &answers, &chosen))
    }

    fn ask(&self, layers: &[&LayerInfo]) -> Result<Vec<Answer>> {
        self.registry.check()?;
        let asked: Vec<Registration> = match self.backend.name() {
            None => self.registry.iter().copied().collect(),
            Some(name) => vec![*self.registry.find(name)?],
        };
        Ok(asked.into_iter().map(|registration| self.ask_one(registration, layers)).collect())
    }

    fn ask_one(&self, registration: Registration, layers: &[&LayerInfo]) -> Answer {
        let capabilities = registration.probe(&self.device);
        let refusals = match &capabilities {
            Err(_) => Vec::new(),
            Ok(capabilities) => layers
                .iter()
                .map(|layer| {
                    capabilities.accept(layer, self.x_dtype)?;
                    if capabilities.speed < self.min_speed {
                        return Err(Rejection::TooSlow);
                    }
                    registration.accepts.map_or(Ok(()), |accepts| accepts(&self.device, layer))
                })
                .map(Result::err)
                .collect(),
        };
        Answer { registration, capabilities, refusals }
    }

    fn report(&self, layers: &[&LayerInfo], answers: &[Answer], chosen: &[Option<usize>]) -> PlanReport {
        let asked: Vec<Asked> = answers
            .iter()
            .enumerate()
            .map(|(index, answer)| {
                answer.summarize(layers, chosen.iter().filter(|c| **c == Some(index)).count())
            })
            .collect();
        let assignments = layers
            .iter()
            .zip(chosen)
            .map(|(layer, choice)| Assignment {
                layer: Arc::clone(&layer.name),
                backend: choice.and_then(|index| answers.get(index)).map(|answer| answer.registration.id),
            })
            .collect();
        let warnings = slow_warnings(answers, &asked);
        PlanReport {
            requested: self.backend.clone(),
            device: self.device.clone(),
            x_dtype: self.x_dtype,
            assignments,
            asked,
            warnings,
        }
    }
}

/// Nobody is moved to a slow path in silence: one warning for each fallback that runs layers which a faster
/// backend refused. A backend for devices of another kind is not faster on this one.
fn slow_warnings(answers: &[Answer], asked: &[Asked]) -> Vec<String> {
    let speed = |answer: &Answer| answer.capabilities.as_ref().map_or(Speed::Native, |c| c.speed);
    let faster: Vec<String> = answers
        .iter()
        .zip(asked)
        .filter(|(answer, _)| !matches!(answer.capabilities, Err(Rejection::DeviceKind { .. })))
        .filter(|(answer, _)| speed(answer) > Speed::Fallback)
        .filter_map(|(_, asked)| asked.first_reason().map(|reason| format!("`{}`: {reason}", asked.backend)))
        .collect();
    answers
        .iter()
        .zip(asked)
        .filter(|(answer, asked)| asked.runs > 0 && speed(answer) == Speed::Fallback && !faster.is_empty())
        .map(|(_, asked)| {
            format!(
                "{} layers run on `{}`, an order of magnitude below this device's limit, because faster backends \
                 refused ({})",
                asked.runs,
                asked.backend,
                faster.join("; ")
            )
        })
        .collect()
}

/// What one backend answered: to the device, then to each layer.
struct Answer {
    registration: Registration,
    capabilities: Result<Capabilities, Rejection>,
    refusals: Vec<Option<Rejection>>,
}

impl Answer {
    fn verdict(&self, layer: usize) -> Result<(), Rejection> {
        match (&self.capabilities, self.refusals.get(layer)) {
            (Err(rejection), _) | (_, Some(Some(rejection))) => Err(rejection.clone()),
            _ => Ok(()),
        }
    }

    fn summarize(&self, layers: &[&LayerInfo], runs: usize) -> Asked {
        let mut refused: Vec<Refused> = Vec::new();
        for (layer, rejection) in layers.iter().zip(&self.refusals) {
            let Some(rejection) = rejection else { continue };
            match refused.iter_mut().find(|group| group.rejection == *rejection) {
                Some(group) => group.layers.push(Arc::clone(&layer.name)),
                None => refused.push(Refused {
                    rejection: rejection.clone(),
                    message: rejection.to_string(),
                    layers: vec![Arc::clone(&layer.name)],
                }),
            }
        }
        Asked {
            backend: self.registration.id,
            unavailable: self.capabilities.as_ref().err().cloned(),
            accepts: self.refusals.iter().filter(|refusal| refusal.is_none()).count(),
            runs,
            refused,
        }
    }
}

/// Which backend runs each layer of one checkpoint on one device.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) device: Device,
    pub(crate) names: Vec<Arc<str>>,
    pub(crate) backends: Vec<Planned>,
    report: PlanReport,
}

/// A backend that runs layers of a plan, and which.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) registration: Registration,
    pub(crate) capabilities: Capabilities,
    pub(crate) layers: Vec<LayerId>,
}

impl Plan {
    /// Where the layers will run.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Who was asked, who runs what, and who refused and why.
    pub fn report(&self) -> &PlanReport {
        &self.report
    }

    /// The backends that run at least one layer, with how many they run; highest priority first.
    pub fn backends(&self) -> impl ExactSizeIterator<Item = (BackendId, usize)> {
        self.backends.iter().map(|planned| (planned.registration.id, planned.layers.len()))
    }
}

/// Everyone who was asked, and what they said. The same on success as in [`Error::NoBackend`].
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct PlanReport {
    /// What the user asked for.
    pub requested: BACKEND,
    /// Where the layers are to run.
    pub device: Device,
    /// The type that x will have, where that was said.
    pub x_dtype: Option<DType>,
    /// Each layer and the backend chosen for it, in the checkpoint's order.
    pub assignments: Vec<Assignment>,
    /// Each backend that was asked, highest priority first.
    pub asked: Vec<Asked>,
    /// What a user should know although the plan stands.
    pub warnings: Vec<String>,
}

/// A layer and the backend chosen for it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Assignment {
    /// The layer.
    pub layer: Arc<str>,
    /// The backend; `None` where nobody can run it.
    pub backend: Option<BackendId>,
}

/// What one backend answered to all layers.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Asked {
    /// The backend.
    pub backend: BackendId,
    /// Why it cannot be used on this device at all.
    pub unavailable: Option<Rejection>,
    /// How many layers it can run.
    pub accepts: usize,
    /// How many layers it was chosen for.
    pub runs: usize,
    /// The layers it cannot run, by reason.
    pub refused: Vec<Refused>,
}

/// Layers that a backend refused for the same reason.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Refused {
    /// The reason.
    pub rejection: Rejection,
    /// The reason in words.
    pub message: String,
    /// The layers.
    pub layers: Vec<Arc<str>>,
}

impl Asked {
    fn first_reason(&self) -> Option<String> {
        match (&self.unavailable, self.refused.first()) {
            (Some(rejection), _) => Some(rejection.to_string()),
            (None, Some(refused)) => Some(refused.message.clone()),
            (None, None) => None,
        }
    }
}

impl fmt::Display for PlanReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, asked) in self.asked.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{:<12}", asked.backend)?;
            if let Some(rejection) = &asked.unavailable {
                write!(f, " not usable on {}: {rejection}", self.device)?;
                continue;
            }
            write!(f, " runs {} of {} layers", asked.runs, self.assignments.len())?;
            if asked.accepts > asked.runs {
                write!(f, ", could run {}", asked.accepts)?;
            }
            for refused in &asked.refused {
                let more = match refused.layers.len() - 1 {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                let first = refused.layers.first().map(|name| &**name).unwrap_or_default();
                write!(f, "\n{:<12} refuses {first}{more}: {}", "", refused.message)?;
            }
        }
        Ok(())
    }
}
