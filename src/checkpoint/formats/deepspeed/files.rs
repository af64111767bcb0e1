//! The files of a save, told by their names: which rank wrote each.

use crate::checkpoint::folder::Folder;
use crate::checkpoint::formats::numbered_files::NumberedFiles;
use crate::error::{Error, INCOMPLETE, Result};

const MODEL_END: &str = "model_states.pt";
const OPTIM_END: &str = "_optim_states.pt";

/// The names under ZeRO-1, 2 and none; the number is the tensor-parallel rank.
const MODEL: &str = "mp_rank_{}_model_states.pt";

/// The names under ZeRO-3; the first number is the data-parallel rank.
const DIVIDED_MODEL: &str = "zero_pp_rank_{}_mp_rank_{}_model_states.pt";

/// The names of the optimizer's states, without and with bf16.
const OPTIMS: [&str; 2] = [
    "zero_pp_rank_{}_mp_rank_{}_optim_states.pt",
    "bf16_zero_pp_rank_{}_mp_rank_{}_optim_states.pt",
];

/// The files of a save by kind.
#[derive(Debug)]
pub struct Files {
    models: NumberedFiles,
    optims: NumberedFiles,
    /// Whether each data-parallel rank has a file of the model's.
    is_divided: bool,
}

/// A file of one rank.
#[derive(Debug, Clone)]
pub struct RankFile {
    pub name: String,
    pub tensor: u64,
    /// The data-parallel rank, where the file is of one.
    pub data: Option<u64>,
}

/// Whether DeepSpeed gives files such a name.
pub fn is_deepspeeds(name: &str) -> bool {
    let is_model = || {
        ["mp_rank_", "layer_", "expert_"]
            .iter()
            .any(|word| name.contains(word))
    };
    name.ends_with(OPTIM_END) && name.contains("mp_rank_")
        || name.ends_with(MODEL_END) && is_model()
}

/// Whether the first rank, which writes `latest`, writes the file of that name.
pub fn is_of_first_rank(name: &str) -> bool {
    let name = name.strip_prefix("bf16_").unwrap_or(name);
    name.starts_with("zero_pp_rank_0_mp_rank_00") || name == "mp_rank_00_model_states.pt"
}

impl Files {
    /// # Errors
    /// When the save is of a pipeline or of experts, or files are of two saves.
    pub fn of(folder: &Folder) -> Result<Self> {
        let refuse = |reason: String| Err(Error::checkpoint(folder.path(), reason));
        let names = folder.names()?;
        if let Some(reason) = names.iter().find_map(|name| otherwise(name)) {
            return refuse(reason);
        }
        let parse = |pattern: &str| NumberedFiles::parse(folder.path(), pattern, &names);
        let one_of = |one: NumberedFiles, two: NumberedFiles| {
            if let Some((one, two)) = one.names().next().zip(two.names().next()) {
                let reason =
                    format!("{one} and {two} are of two saves; move the files of one of them away");
                return Err(Error::checkpoint(folder.path(), reason));
            }
            Ok(if one.is_empty() { two } else { one })
        };
        let divided = parse(DIVIDED_MODEL)?;
        let is_divided = !divided.is_empty();
        let models = one_of(parse(MODEL)?, divided)?;
        let [plain, bf16] = OPTIMS.map(parse);
        if models.is_empty() {
            return refuse(format!("holds no *_model_states.pt: {INCOMPLETE}"));
        }
        let optims = one_of(plain?, bf16?)?;
        Ok(Self {
            models,
            optims,
            is_divided,
        })
    }

    /// The model's files, those of the lower data-parallel ranks first.
    pub fn models(&self) -> Vec<RankFile> {
        self.models.iter().filter_map(rank_file).collect()
    }

    /// The optimizer's files, those of the lower data-parallel ranks first.
    pub fn optims(&self) -> Vec<RankFile> {
        self.optims.iter().filter_map(rank_file).collect()
    }

    /// # Errors
    /// When files are missing of `data` times `tensor` ranks, or some are of others.
    pub fn require(&self, data: u64, tensor: u64, with_optims: bool) -> Result<()> {
        let grid = [0..data, 0..tensor];
        match self.is_divided {
            true => self.models.require(&grid)?,
            false => self.models.require_ranks(tensor)?,
        }
        match with_optims {
            true => self.optims.require(&grid),
            false => Ok(()),
        }
    }
}

fn rank_file((numbers, name): (&[u64], &str)) -> Option<RankFile> {
    let (data, tensor) = match *numbers {
        [tensor] => (None, tensor),
        [data, tensor] => (Some(data), tensor),
        _ => return None,
    };
    let name = name.to_owned();
    Some(RankFile { name, tensor, data })
}

/// Why a file is of a model that is stored otherwise.
fn otherwise(name: &str) -> Option<String> {
    let is_model = name.ends_with(MODEL_END);
    if is_model && name.contains("expert_")
        || name.ends_with(OPTIM_END) && name.contains("expp_rank_")
    {
        return Some(format!(
            "{name} is of DeepSpeed's own mixture of experts, which keeps each expert in a file of its own that is not read; save the model's state_dict"
        ));
    }
    (is_model && name.starts_with("layer_")).then(|| {
        format!("{name} is of DeepSpeed's pipeline engine, whose layers have no names of a model; save without pipeline parallelism")
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn files(names: &[&str]) -> Result<Files> {
        let root = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(root.path().join(name), "").unwrap();
        }
        Files::of(&Folder::open(root.path()).unwrap())
    }

    fn refusal(names: &[&str]) -> String {
        files(names).unwrap_err().to_string()
    }

    const MODEL_0: &str = "zero_pp_rank_0_mp_rank_00_model_states.pt";
    const MODEL_1: &str = "zero_pp_rank_1_mp_rank_00_model_states.pt";

    #[test]
    fn files_are_kept_by_their_ranks() {
        let own = files(&[
            MODEL_1,
            MODEL_0,
            "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
            "x.pt",
        ])
        .unwrap();
        let models: Vec<_> = own
            .models()
            .into_iter()
            .map(|file| (file.data, file.tensor))
            .collect();
        assert_eq!(models, [(Some(0), 0), (Some(1), 0)]);
        let missing = own.require(2, 1, true).unwrap_err().to_string();
        assert!(
            missing.contains("bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt"),
            "{missing}"
        );
        let stale = own.require(1, 1, true).unwrap_err().to_string();
        assert!(stale.contains(MODEL_1), "{stale}");
    }

    #[test]
    fn other_engines_and_two_saves_are_refused_by_name() {
        assert!(refusal(&["layer_03-model_00-model_states.pt", MODEL_0]).contains("pipeline"));
        assert!(refusal(&["layer_0_expert_3_mp_rank_00_model_states.pt"]).contains("experts"));
        assert!(refusal(&["expp_rank_0_mp_rank_00_optim_states.pt"]).contains("experts"));
        assert!(refusal(&["mp_rank_00_model_states.pt", MODEL_0]).contains("two saves"));
        assert!(
            refusal(&["bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"])
                .contains("no *_model_states.pt")
        );
    }

    #[test]
    fn deepspeeds_names_are_known_from_others() {
        for name in [
            MODEL_0,
            "mp_rank_00_model_states.pt",
            "zero_pp_rank_0_mp_rank_00_optim_states.pt",
            "layer_00-model_states.pt",
        ] {
            assert!(is_deepspeeds(name), "{name}");
        }
        for name in [
            "model_states.pt",
            "optim_states.pt",
            "mp_rank_00",
            "mp_rank_00_model.pt",
        ] {
            assert!(!is_deepspeeds(name), "{name}");
        }
    }

    #[test]
    fn files_of_the_first_rank_are_told_by_their_names() {
        for (name, expected) in [
            ("mp_rank_00_model_states.pt", true),
            ("zero_pp_rank_0_mp_rank_00_model_states.pt", true),
            ("bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", true),
            ("zero_pp_rank_0_mp_rank_01_optim_states.pt", false),
            ("zero_pp_rank_1_mp_rank_00_optim_states.pt", false),
            ("mp_rank_01_model_states.pt", false),
        ] {
            assert_eq!(is_of_first_rank(name), expected, "{name}");
        }
    }
}
