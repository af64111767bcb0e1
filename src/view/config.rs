//! The config.json that a view shows and checks against: a file, or made from params.json, or stated by flags.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::config_text::Text;
use super::declared;
use super::options::{DtypeChoice, Options};
use super::side_files::{self, CONFIG};
use crate::checkpoint::{Checkpoint, SideFile};
use crate::error::{Error, Result};
use crate::mapping::{self, Classes, Config, Derivation, Family, MappedTensor, System, Tables};
use crate::output::{self, Attributes, VirtualFile};
use crate::source::SourceFile;
use crate::tensor::{Dtype, SourceTensor};

/// The section of a multimodal model's text part.
const TEXT: &str = "text_config";

const ARCHITECTURES: &str = "architectures";

/// The prefix that FSDP2 puts before the name of a class.
const WRAPPER: &str = "FSDP";

pub struct ConfigFile<'a> {
    values: Config,
    origin: Origin<'a>,
    /// Values of flags, where nothing else says them.
    taken: Vec<String>,
    /// Whether the text differs from the file's.
    changed: bool,
}

enum Origin<'a> {
    File(Arc<SourceFile>, Text),
    Derived(&'a Derivation, Map<String, Value>),
    /// By flags alone: nothing is shown.
    Stated,
}

impl<'a> ConfigFile<'a> {
    pub fn find(
        checkpoint: &Checkpoint,
        side_files: &[SideFile],
        tables: &'a Tables,
        options: &Options,
    ) -> Result<Self> {
        let file = side_files.iter().find(|file| file.path == CONFIG);
        let mut this = match (file, &checkpoint.params) {
            (Some(file), _) => {
                let this = Self::read(&file.file)?;
                declared::check(&this.values, &file.file, checkpoint, tables)?;
                this
            }
            (None, Some(params)) => Self::derive(params, tables)?,
            (None, None) if options.family.is_some() && options.heads.is_some() => {
                Self::declared(options)
            }
            (None, None) => return Err(missing(options)),
        };
        this.check_family(options, tables)?;
        this.check_model_type(options, tables)?;
        let family = options.family.as_deref().filter(|_| this.is_untyped());
        let flags = [
            ("model_type", family.map(Value::from)),
            ("num_attention_heads", options.heads.map(Value::from)),
            ("num_key_value_heads", options.kv_heads.map(Value::from)),
            ("tie_word_embeddings", options.tied.map(Value::from)),
        ];
        for (key, value) in flags {
            if let Some(value) = value {
                this.state(key, value)?;
            }
        }
        Ok(this)
    }

    pub fn values(&self) -> &Config {
        &self.values
    }

    pub fn model_type(&self) -> &str {
        self.values.model_type().unwrap_or("unknown")
    }

    /// Whether nothing says what kind of model this is, which no reader of the directory could do without.
    pub fn is_untyped(&self) -> bool {
        self.values.model_type().is_none() && !self.values.is_quantized()
    }

    /// The origin of the family's name.
    pub fn family_said(&self) -> String {
        let model_type = self.model_type();
        match &self.origin {
            Origin::File(file, _) => {
                format!("{} says model_type is {model_type}", file.path().display())
            }
            Origin::Derived(..) => format!("params.json is one of a {model_type}"),
            Origin::Stated => format!("the command line says --family {model_type}"),
        }
    }

    /// The family that tables know, unless its weights are quantized and so have other names and shapes.
    pub fn family<'t>(&self, tables: &'t Tables, options: &Options) -> Option<&'t Family> {
        let name = options.family.as_deref().or(self.values.model_type())?;
        tables.family(name).filter(|_| !self.values.is_quantized())
    }

    /// Refuses a `--family` that nothing is known about, which would otherwise be passed over in silence.
    /// One that config.json says itself is the user's word that no table is needed.
    fn check_family(&self, options: &Options, tables: &Tables) -> Result<()> {
        let is_said = |name: &str| match &self.origin {
            Origin::File(..) => {
                let of_class = || !Classes::load().of_type(name).is_empty();
                self.values
                    .model_type()
                    .map_or_else(of_class, |said| said == name)
            }
            Origin::Derived(..) | Origin::Stated => false,
        };
        match &options.family {
            Some(name) if tables.family(name).is_none() && !is_said(name) => {
                let said = self
                    .values
                    .model_type()
                    .filter(|said| tables.family(said).is_none());
                let families = tables.families().map(|family| &*family.name);
                let known = Vec::from_iter(said.into_iter().chain(families)).join(", ");
                Err(Error::Mapping(format!(
                    "no family {name} is known: give --mapping FILE, or one of {known}"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a `--family` where config.json says another that is known.
    fn check_model_type(&self, options: &Options, tables: &Tables) -> Result<()> {
        let said = self.values.model_type().unwrap_or_default();
        let names = |of: &str| tables.family(of).map(|family| &*family.name);
        match &options.family {
            Some(declared) if names(said).is_some() && names(said) != names(declared) => {
                Err(Error::Mapping(format!(
                    "config.json says model_type is {said}, the command line {declared}; leave out --family or give that model's --config-from"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Values that were taken from the command line because no file says them.
    pub fn note(&self) -> Option<String> {
        match &*self.taken {
            [] => None,
            taken => Some(format!(
                "{} taken from the command line: the tensors' shapes fit, but no file says so",
                taken.join(", ")
            )),
        }
    }

    /// The type that config.json wants the weights to have.
    pub fn dtype(&self) -> Option<Dtype> {
        let name = self
            .values
            .get("dtype")
            .or(self.values.get("torch_dtype"))?;
        Dtype::from_torch(name.as_str()?.trim_start_matches("torch."))
    }

    /// The type to cast to, if any.
    pub fn dtype_of(&self, choice: DtypeChoice) -> Result<Option<Dtype>> {
        let lacking = "config.json names no dtype; pass --dtype bf16, f16 or f32";
        match choice {
            DtypeChoice::Keep => Ok(None),
            DtypeChoice::To(dtype) => Ok(Some(dtype)),
            DtypeChoice::Config => match self.dtype() {
                Some(dtype) => Ok(Some(dtype)),
                None => Err(Error::Mapping(lacking.to_owned())),
            },
        }
    }

    /// Says the type of cast weights where config.json says one.
    pub fn state_dtype(&mut self, dtype: Option<Dtype>) {
        if let Some(name) = dtype.and_then(Dtype::torch_name) {
            for key in ["dtype", "torch_dtype"] {
                self.replace(key, name.into());
            }
        }
    }

    /// Takes out what says that the weights are quantized.
    pub fn dequantize(&mut self) {
        let keys = ["quantization_config", "compression_config"];
        self.changed |= self.values.remove(&keys);
        if let Origin::File(_, text) = &mut self.origin {
            for key in keys {
                text.remove(None, key);
                text.remove(Some(TEXT), key);
            }
        }
    }

    /// Replaces what config.json says, or adds it.
    pub fn set(&mut self, key: &str, value: Value) {
        if self.values.get(key).is_some() {
            return self.replace(key, value);
        }
        if let Origin::File(_, text) = &mut self.origin {
            text.remove(None, key);
            text.add(None, key, &value);
        }
        self.values.set_root(key, value);
        self.changed = true;
    }

    fn replace(&mut self, key: &str, value: Value) {
        if self.values.replace(key, value.clone()) {
            self.changed = true;
            if let Origin::File(_, text) = &mut self.origin {
                text.replace(None, key, &value);
                text.replace(Some(TEXT), key, &value);
            }
        }
    }

    /// Takes the name of a wrapper off the architecture: FSDP2 makes a class `FSDPQwen2ForCausalLM` of the model's own, and
    /// transformers writes that name.
    fn unwrap_architecture(&mut self) {
        let Some(Value::Array(all)) = self.values.json().get(ARCHITECTURES) else {
            return;
        };
        let bare = |name: &Value| match name.as_str().and_then(|name| name.strip_prefix(WRAPPER)) {
            Some(own) if own.starts_with(|char: char| char.is_ascii_uppercase()) => own.into(),
            _ => name.clone(),
        };
        let own: Vec<Value> = all.iter().map(bare).collect();
        for (old, new) in all.clone().iter().zip(&own).filter(|(old, new)| old != new) {
            if let Origin::File(_, text) = &mut self.origin {
                text.replace_inside(ARCHITECTURES, old, new);
            }
            self.changed = true;
        }
        if self.changed {
            self.values.replace(ARCHITECTURES, own.into());
        }
    }

    /// Adds the values that tensors alone tell, where flags stand in for config.json.
    pub fn infer(
        &mut self,
        system: &System,
        family: &Family,
        sources: &[SourceTensor],
    ) -> Result<()> {
        if matches!(self.origin, Origin::Stated) {
            for (key, value) in mapping::infer(system, family, &self.values, sources)? {
                self.values.set(&key, value.into());
            }
        }
        Ok(())
    }

    /// Looks which heads the tensors have: a class that transformers does not know does not tell.
    pub fn see_heads(&mut self, family: &Family, tensors: &[MappedTensor]) {
        let names = tensors.iter().map(|tensor| &*tensor.name);
        self.values.see_heads(&family.head, names);
    }

    /// Adds the values that only mapped tensors tell, where config.json is made from params.json.
    pub fn complete(&mut self, family: &Family, tensors: &[MappedTensor]) -> Result<()> {
        let is_tied = || super::tied::shares_head(family, tensors);
        match &self.origin {
            Origin::File(..) => {}
            Origin::Derived(derivation, params) => {
                self.values = Config::new(derivation.config(params, tensors, is_tied()?)?);
            }
            Origin::Stated => self.state_default("tie_word_embeddings", is_tied()?.into()),
        }
        Ok(())
    }

    /// Says which config.json an error speaks of.
    pub fn explain(&self, error: Error) -> Error {
        let Error::Mapping(reason) = error else {
            return error;
        };
        let which = match &self.origin {
            Origin::File(file, _) => format!("is {} this model's?", file.path().display()),
            Origin::Derived(..) => "here config.json is what params.json says".to_owned(),
            Origin::Stated => {
                "here --family, --heads and --kv-heads stand for config.json".to_owned()
            }
        };
        Error::Mapping(format!("{reason}; {which}"))
    }

    /// The file to show. Made files are as old and as readable as the weights.
    pub fn file(&self, tensors: &[MappedTensor]) -> Option<VirtualFile> {
        match &self.origin {
            Origin::Stated => None,
            Origin::File(file, _) if !self.changed => {
                Some(output::source_file(CONFIG, file.clone()))
            }
            Origin::File(file, text) => Some(made(text.bytes(), tensors).made_from(file.clone())),
            Origin::Derived(..) => Some(made(output::python_json(self.values.json()), tensors)),
        }
    }

    fn read(file: &Arc<SourceFile>) -> Result<Self> {
        let (text, values) = side_files::parse(file)?;
        let mut this = Self {
            values: Config::new(values),
            origin: Origin::File(file.clone(), text),
            changed: false,
            taken: Vec::new(),
        };
        this.unwrap_architecture();
        Ok(this)
    }

    fn derive(params: &Map<String, Value>, tables: &'a Tables) -> Result<Self> {
        let Some((derivation, model)) = tables.derivation(params) else {
            return Err(Error::Mapping(
                "params.json does not say enough to make a config.json: pass --config-from DIR"
                    .to_owned(),
            ));
        };
        Ok(Self {
            values: Config::new(derivation.config(model, &[], false)?),
            origin: Origin::Derived(derivation, model.clone()),
            changed: true,
            taken: Vec::new(),
        })
    }

    fn declared(options: &Options) -> Self {
        let mut values = Config::default();
        if let Some(family) = &options.family {
            values.set("model_type", family.clone().into());
        }
        Self {
            values,
            origin: Origin::Stated,
            changed: false,
            taken: Vec::new(),
        }
    }

    /// Adds the value of a flag, which config.json must not contradict.
    fn state(&mut self, key: &str, value: Value) -> Result<()> {
        match self.values.get(key) {
            Some(said) if *said != value => Err(Error::Mapping(format!(
                "config.json says {key} is {said}, the command line {value}; leave the flag out, or give that model's --config-from"
            ))),
            Some(_) => Ok(()),
            None => {
                self.taken.push(format!("{key} {value}"));
                if let Origin::File(_, text) = &mut self.origin {
                    let has_text = self.values.json().get(TEXT).is_some_and(Value::is_object);
                    text.add(has_text.then_some(TEXT), key, &value);
                }
                self.values.set(key, value);
                self.changed = true;
                Ok(())
            }
        }
    }

    fn state_default(&mut self, key: &str, value: Value) {
        if self.values.get(key).is_none() {
            self.values.set(key, value);
        }
    }
}

fn made(bytes: Vec<u8>, tensors: &[MappedTensor]) -> VirtualFile {
    let attributes = Attributes::of(output::sources(tensors));
    output::inline_file(CONFIG, bytes, attributes)
}

/// The error about a config.json that is nowhere, and flags that do not suffice in its place.
fn missing(options: &Options) -> Error {
    let flags = [
        ("--family NAME", options.family.is_none()),
        ("--heads N", options.heads.is_none()),
        ("--kv-heads N", options.kv_heads.is_none()),
    ];
    let lacking = flags.iter().filter(|(_, lacks)| *lacks);
    let lacking: Vec<&str> = lacking.map(|(flag, _)| *flag).collect();
    let place = match &options.config_from {
        Some(folder) => format!(
            "no config.json, neither beside the weights nor in {}",
            folder.display()
        ),
        None => "no config.json".to_owned(),
    };
    Error::Mapping(format!(
        "{place}: pass --config-from DIR, the model's Hugging Face folder (or {})",
        lacking.join(", ")
    ))
}
