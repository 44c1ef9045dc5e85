//! The figures of the bench, by name, so that no text can disagree with its tables.

/// Returns what a table says in this column and row, named `COLUMN/ROW`.
///
/// # Errors
///
/// No table has it.
pub fn cell(tables: &str, name: &str) -> Result<String, String> {
    let (column, row) = name.split_once('/').unwrap_or_default();
    let mut place = None;
    for line in tables.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if cells.len() < 3 {
            place = None; // The table ends.
        } else if place.is_none() {
            let of_column = cells.iter().position(|cell| *cell == column);
            place = Some(of_column.unwrap_or(usize::MAX));
        } else if cells[1] == row {
            let found = place.and_then(|place| cells.get(place));
            if let Some(cell) = found {
                return Ok((*cell).to_owned());
            }
        }
    }
    Err(format!("no figure is called {name}"))
}
