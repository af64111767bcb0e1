//! The options that decide what a view shows, shared by all subcommands, and the view that they give.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::config_from;
use super::place::StoreOptions;
use super::size;
use super::weighted::{self, Weighted};
use crate::checkpoint::locate::check_is_there;
use crate::error::Result;
use crate::mount;
use crate::output::Split;
use crate::run::{LATEST, Run};
use crate::source::Budget;
use crate::tensor;
use crate::text::one_line;
use crate::view::{DtypeChoice, MAX_SHARD_SIZE, Options, OutputFormat, View};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "What the view shows")]
pub struct ViewOptions {
    /// Take config.json, tokenizer and other side files from here, or from a model that the hub's local cache holds
    /// [default for checkpoints without a config.json: $CKPTFS_CONFIG_FROM]
    #[arg(short, long, value_name = "DIR|ORG/MODEL", value_parser = config_from::folder())]
    pub config_from: Option<PathBuf>,
    /// hf: safetensors files; npy: one file for each tensor, by module, for numpy.load; dcp: torch.distributed.checkpoint;
    /// torch: torch.save; meta: consolidated.00.pth and params.json
    #[arg(long = "as", value_enum, default_value_t = Shown::Hf, value_name = "LAYOUT")]
    pub shown: Shown,
    /// The names that the reader of --as dcp, torch or meta wants: torchtitan, torchtitan-0.2, lingua, torchtune, meta or hf
    /// [default: hf for torch, meta for meta]
    #[arg(long, value_name = "NAME")]
    pub names: Option<String>,
    /// Largest chunk of --as dcp, such as 4MiB
    #[arg(long, value_name = "SIZE", value_parser = size::parse, default_value = "4MiB")]
    pub chunk_size: u64,
    /// Element type of the weights; config: the one that config.json names
    #[arg(long, value_enum, default_value_t = Dtype::Keep)]
    pub dtype: Dtype,
    /// Largest shard, such as 5GB or 5GiB [default: 5GB]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub max_shard_size: Option<u64>,
    /// Whether shards are those of the source where no size is asked for.
    #[arg(skip)]
    pub keeps_shards: bool,
    /// A mapping table of your own
    #[arg(long, value_name = "FILE")]
    pub mapping: Option<PathBuf>,
    /// The system that wrote the checkpoint, instead of the one detected
    #[arg(long, value_name = "NAME")]
    pub system: Option<String>,
    /// The model family, instead of the one detected
    #[arg(long, value_name = "NAME")]
    pub family: Option<String>,
    /// Attention heads, where neither config.json nor the checkpoint says
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub heads: Option<u64>,
    /// Key and value heads, where neither config.json nor the checkpoint says
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub kv_heads: Option<u64>,
    /// The model to show of a training state that holds several, such as ema; inspect lists them
    #[arg(long, value_name = "NAME")]
    pub entry: Option<String>,
    /// Show heads that a wrapper added to the model, such as v_head of TRL
    #[arg(long)]
    pub keep_extra: bool,
    /// Show the adapter of a LoRA checkpoint instead of the model
    #[arg(long, conflicts_with = "merge")]
    pub adapter: bool,
    /// lora_alpha of the adapter, where no file beside it says
    #[arg(long, value_name = "X")]
    pub lora_alpha: Option<f64>,
    /// Whether the output layer shares the embedding's weights, where config.json does not say
    #[arg(long, value_name = "true|false")]
    pub tied: Option<bool>,
    /// Show a save although the times of its files, or the run's own file, say that it is being written
    #[arg(long)]
    pub accept_save: bool,
    /// Memory for metadata: indexes, headers, pickles [default: a quarter of what this process may have, at most 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub metadata_memory: Option<u64>,
    /// Show quantized weights (block fp8, compressed-tensors, modelopt, MXFP4) as floats of this type
    #[arg(long, value_enum, value_name = "TYPE")]
    pub dequantize: Option<Float>,
    /// Average the source with this checkpoint of the same model; may be repeated
    #[arg(long, value_name = "SOURCE", value_parser = weighted::path(), conflicts_with = "add_delta")]
    pub average: Vec<PathBuf>,
    /// Weights of the average: that of the source, then one for each --average [default: equal ones]
    #[arg(long, value_name = "A,B,...", value_delimiter = ',', allow_negative_numbers = true, value_parser = weighted::number, requires = "average")]
    pub weights: Vec<f64>,
    /// Add W times what this checkpoint of the same model differs by; may be repeated
    #[arg(long, value_name = "SOURCE=W", value_parser = weighted::delta())]
    pub add_delta: Vec<Weighted>,
    /// Merge a LoRA adapter, times WEIGHT [default: 1]; `own` is the one that the source holds; may be repeated
    #[arg(long, value_name = "ADAPTER[=WEIGHT]", value_parser = weighted::merge())]
    pub merge: Vec<Weighted>,
    /// Show linear weights quantized, with a scale for each block of 128 x 128
    #[arg(long, value_enum, value_name = "TYPE")]
    pub quantize: Option<Quantized>,
    #[command(flatten)]
    pub stores: StoreOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Quantized {
    Fp8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Float {
    #[value(aliases = ["bfloat16", "torch.bfloat16"])]
    Bf16,
    #[value(aliases = ["float16", "half", "torch.float16"])]
    F16,
    #[value(aliases = ["float32", "float", "torch.float32"])]
    F32,
}

impl Float {
    fn dtype(self) -> tensor::Dtype {
        match self {
            Self::Bf16 => tensor::Dtype::BF16,
            Self::F16 => tensor::Dtype::F16,
            Self::F32 => tensor::Dtype::F32,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    Keep,
    #[value(aliases = ["bfloat16", "torch.bfloat16"])]
    Bf16,
    #[value(aliases = ["float16", "half", "torch.float16"])]
    F16,
    #[value(aliases = ["float32", "float", "torch.float32"])]
    F32,
    Config,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shown {
    Hf,
    Npy,
    Dcp,
    Torch,
    Meta,
}

impl Shown {
    fn layout(self) -> OutputFormat {
        match self {
            Self::Hf => OutputFormat::Hf,
            Self::Npy => OutputFormat::Npy,
            Self::Dcp => OutputFormat::Dcp,
            Self::Torch => OutputFormat::Torch,
            Self::Meta => OutputFormat::Meta,
        }
    }
}

impl Dtype {
    fn choice(self) -> DtypeChoice {
        match self {
            Self::Keep => DtypeChoice::Keep,
            Self::Bf16 => DtypeChoice::To(tensor::Dtype::BF16),
            Self::F16 => DtypeChoice::To(tensor::Dtype::F16),
            Self::F32 => DtypeChoice::To(tensor::Dtype::F32),
            Self::Config => DtypeChoice::Config,
        }
    }
}

impl ViewOptions {
    /// The run of adapters that is to be merged, and its place among the adapters.
    pub fn run_of_adapters(&self) -> Result<Option<(usize, Run)>> {
        for (number, merged) in self.merge.iter().enumerate() {
            if !merged.is_own
                && let Some(run) = Run::find(&merged.path)?
            {
                return Ok(Some((number, run)));
            }
        }
        Ok(None)
    }

    fn split(&self) -> Split {
        match self.max_shard_size {
            Some(limit) => Split::AtMost(limit),
            None if self.keeps_shards => Split::AsStored {
                or_at_most: MAX_SHARD_SIZE,
            },
            None => Split::AtMost(MAX_SHARD_SIZE),
        }
    }
}

/// The checkpoint or run that `source` names; of `RUN/latest` the save that it leads to now.
pub fn pinned(source: &Path) -> Result<PathBuf> {
    mount::check_source(source)?;
    let pinned = Run::pinned(source)?;
    check_is_there(&pinned).map(|()| pinned)
}

/// The one checkpoint that `source` names, for commands that work on one; of a run the latest, which is said.
pub fn single(source: &Path) -> anyhow::Result<PathBuf> {
    let single = one_save(source)?;
    if single != source && !source.ends_with(LATEST) {
        let (run, save) = (source.display(), single.display());
        let line = format!("{run}: a run; its latest save is taken: {save}");
        tracing::warn!("{}", one_line(&line));
    }
    Ok(mount::absolute(&single)?)
}

fn one_save(source: &Path) -> Result<PathBuf> {
    mount::check_source(source)?;
    Run::single(source)
}

impl From<&ViewOptions> for Options {
    fn from(options: &ViewOptions) -> Self {
        let options = options.clone();
        Self {
            split: options.split(),
            config_from: options.config_from,
            usual_config_from: config_from::usual(),
            layout: options.shown.layout(),
            names: options.names,
            chunk_size: options.chunk_size,
            dtype: options.dtype.choice(),
            mapping: options.mapping,
            system: options.system,
            family: options.family,
            heads: options.heads,
            kv_heads: options.kv_heads,
            entry: options.entry,
            keep_extra: options.keep_extra,
            adapter: options.adapter,
            lora_alpha: options.lora_alpha,
            tied: options.tied,
            accepts_rewritten: options.accept_save,
            budget: options
                .metadata_memory
                .map_or_else(Budget::default, Budget::of),
            dequantize: options.dequantize.map(Float::dtype),
            average: options.average,
            weights: options.weights,
            deltas: options
                .add_delta
                .into_iter()
                .map(|delta| (delta.path, delta.weight))
                .collect(),
            merge: options.merge.into_iter().map(Weighted::merged).collect(),
            quantizes: options.quantize.is_some(),
        }
    }
}

/// The same with one save of each member and adapter: of a run the one that `RUN/latest` leads to now.
fn pinned_others(options: &Options) -> Result<Options> {
    let mut options = options.clone();
    for path in options.others_mut() {
        *path = one_save(path)?;
    }
    Ok(options)
}

/// Refuses options that would fail with every checkpoint of a run.
pub fn check(options: &ViewOptions) -> Result<()> {
    Options::from(options).check()
}

/// Refuses options that name places which do not answer.
pub fn check_places(options: &ViewOptions) -> Result<()> {
    let mut options = Options::from(options);
    let own = [&options.config_from, &options.mapping];
    let own: Vec<PathBuf> = own.into_iter().flatten().cloned().collect();
    let mut all = own
        .iter()
        .map(|path| &**path)
        .chain(options.others_mut().map(|path| &**path));
    all.try_for_each(mount::check_source)
}

/// The view of `source`; what is worth knowing about it goes to the log.
pub fn open(source: &Path, options: &ViewOptions) -> Result<View> {
    open_with(source, &options.into())
}

/// The same. Of one budget, as often as it is opened.
pub fn open_with(source: &Path, options: &Options) -> Result<View> {
    let configs = options.config_from.iter().chain(&options.usual_config_from);
    let mut others = configs.chain(&options.mapping);
    others.try_for_each(|path| mount::check_source(path))?;
    let view = View::open(source, &pinned_others(options)?)?;
    tracing::info!("{}", one_line(&said(source, &view)));
    for note in &view.notes {
        match note.is_warning {
            true => tracing::warn!("{}", one_line(&note.text)),
            false => tracing::info!("{}", one_line(&note.text)),
        }
    }
    Ok(view)
}

fn said(source: &Path, view: &View) -> String {
    let (source, system, family) = (source.display(), &view.system, &view.family);
    let (count, bytes) = (view.tensors.len(), size::shown(view.bytes()));
    format!("{source}: system {system}, family {family}, {count} tensors, {bytes}")
}
