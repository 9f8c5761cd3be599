//! What a backend says of itself, and whether it is so.

use gptq_core::backend::{API_VERSION, BACKEND, Capabilities, Rejection};
use gptq_core::device::Device;

use crate::case::Case;
use crate::edges::Edges;
use crate::rig::Rig;
use crate::target::{Summary, Target};

/// What the capabilities declare is so, out to its edges: of every width, group size, type and shape that they name
/// there is a layer that the backend accepts, and what it accepts is right.
///
/// A condition (`accepts`) may refuse some layers of a kind. One that refuses all of them makes the capabilities wrong.
pub fn declared_edges(target: &Target) -> Result<Summary, String> {
    let capabilities = target.capabilities().map_err(|rejection| rejection.to_string())?;
    let mut summary = Summary::default();
    let mut worst = 0.0f64;
    for mut claim in Edges::new(capabilities).claims() {
        let declared = |problem: String| format!("the capabilities declare {}: {problem}", claim.what);
        let mut first_refused: Option<(Case, Rejection)> = None;
        let accepted = claim.layers.find(|(case, x_dtype)| match target.accepts(case, *x_dtype) {
            Ok(()) => true,
            Err(rejection) => {
                summary.declined += 1;
                first_refused.get_or_insert((*case, rejection));
                false
            }
        });
        let (case, x_dtype) = match (accepted, first_refused) {
            (Some(accepted), _) => accepted,
            (None, None) => continue,
            (None, Some((case, rejection))) => {
                return Err(declared(format!(
                    "`accepts` refuses every layer of this kind that was drawn, first {case}: {rejection}; \
                     declare less"
                )));
            }
        };
        let rig = Rig::open(target, &[case], x_dtype, None).map_err(declared)?;
        let mut context = rig.context()?;
        for rows in [1, 17] {
            let x = rig.x(0, rows, x_dtype, 52);
            let output = rig.forward(0, &x, &mut context).map_err(declared)?;
            worst = worst.max(rig.judge(0, &x, &output).map_err(declared)?);
            summary.ran += 1;
        }
    }
    match summary.ran {
        0 => Err("the capabilities allow no layer at all: a list is empty, or a multiple is 0".into()),
        _ => Ok(Summary { worst: Some(worst), ..summary }),
    }
}

/// The registration is one that a user can ask for by name, that says no to devices it does not know, and that gives the
/// same answer every time. Needs no device.
pub fn registration(target: &Target) -> Result<Summary, String> {
    let registration = target.registration();
    let id = registration.id.as_str();
    let words = |text: &str| {
        let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(letter)
    };
    if !words(id) {
        return Err(format!(
            "the name `{id}` is not lower case words joined by `_`: options are written {id}.NAME=VALUE, and names are \
             read in any case"
        ));
    }
    let Ok(asked) = id.parse::<BACKEND>();
    if asked.name() != Some(id) {
        return Err(format!(
            "a user who asks for `{id}` gets `{asked}`: that name is taken; choose another for the registration"
        ));
    }
    if registration.api != API_VERSION {
        return Err(format!(
            "it says that it was built for version {} of the backend interface, and this is {API_VERSION}; start the \
             registration from Registration::new",
            registration.api
        ));
    }
    for option in registration.options {
        if !words(option.name) || option.help.is_empty() {
            return Err(format!(
                "option `{}`: its name has to be lower case words joined by `_`, and its help a sentence",
                option.name
            ));
        }
    }
    let nowhere = Device::Other("nowhere".into(), 0);
    if registration.probe(&nowhere).is_ok() {
        return Err(format!(
            "asked about `{nowhere}`, a kind of device that nobody has, it says that it can run there; answer \
             Rejection::DeviceKind for every kind but its own"
        ));
    }
    for device in [target.device(), &nowhere] {
        let answer = || format!("{:?}", registration.probe(device));
        let (first, second) = (answer(), answer());
        if first != second {
            return Err(format!("asked twice about {device}, it says {first} and then {second}"));
        }
    }
    if let Ok(Capabilities { bits, x_dtypes, scale_dtypes, .. }) = target.capabilities()
        && (bits.is_empty() || x_dtypes.is_empty() || scale_dtypes.is_empty())
    {
        return Err("bits, x_dtypes or scale_dtypes is empty, so that no layer is ever accepted".into());
    }
    Ok(Summary::ran(1))
}
