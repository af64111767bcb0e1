//! Sizes of blocks, where shapes alone do not tell them.

use serde_json::Value;

use crate::mapping::Config;

/// The sizes that config.json names.
#[derive(Default)]
pub struct Blocks {
    blocks: Vec<[u64; 2]>,
    groups: Vec<u64>,
}

impl Blocks {
    pub fn of(config: &Config) -> Self {
        let mut all = Self::default();
        let Some(quantization) = config.quantization() else {
            return all;
        };
        all.add(quantization.get("weight_block_size"));
        all.add_group(quantization.get("group_size"));
        let groups = quantization.get("config_groups").and_then(Value::as_object);
        for group in groups.into_iter().flat_map(|groups| groups.values()) {
            let weights = group.get("weights");
            all.add(weights.and_then(|weights| weights.get("block_structure")));
            all.add_group(weights.and_then(|weights| weights.get("group_size")));
        }
        all
    }

    fn add(&mut self, block: Option<&Value>) {
        let sides = block.and_then(Value::as_array);
        let sides: Vec<u64> = sides
            .into_iter()
            .flatten()
            .filter_map(Value::as_u64)
            .collect();
        if let [rows, columns] = sides[..]
            && rows > 0
            && columns > 0
        {
            self.blocks.push([rows, columns]);
        }
    }

    fn add_group(&mut self, size: Option<&Value>) {
        self.groups
            .extend(size.and_then(Value::as_u64).filter(|size| *size > 0));
    }

    /// The block size that the config names first, else `usual`.
    pub fn configured_or(&self, usual: [u64; 2]) -> [u64; 2] {
        self.blocks.first().copied().unwrap_or(usual)
    }

    /// The block of which `scales` has one number each, of a matrix of these sides.
    pub fn block(&self, of: [u64; 2], scales: [u64; 2]) -> Option<[u64; 2]> {
        let [rows, columns] = of;
        if scales == [1, 1] {
            return Some([rows.max(1), columns.max(1)]);
        }
        let mut blocks = self.blocks.iter().copied();
        let fits = |[height, width]: &[u64; 2]| {
            scales == [rows.div_ceil(*height), columns.div_ceil(*width)]
        };
        if let Some(block) = blocks.find(fits) {
            return Some(block);
        }
        let height = match scales[0] {
            high if high == rows => 1,
            1 => rows,
            _ => return None,
        };
        let mut groups = self.groups.iter().copied();
        let width = match scales[1] {
            1 => Some(columns),
            wide => groups
                .find(|group| columns.div_ceil(*group) == wide)
                .or_else(|| columns.is_multiple_of(wide).then(|| columns / wide)),
        };
        Some([height, width?])
    }
}
