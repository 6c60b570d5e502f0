/// How wide lines on stdout may be.
struct OutputWidths {
    /// Of tables; `nil` for no limit.
    let table: Int?
    /// Of all other lines.
    let text: Int

    /// Those of the terminal. In a pipe, whoever reads tables wants whole names.
    static var stdout: OutputWidths { OutputWidths(table: Terminal.outputWidth, text: Terminal.outputWidth ?? 80) }

    /// Text beside its label, in a column of its own.
    ///
    /// - Parameter column: where the text begins.
    func labelled(_ label: String, _ text: String, column: Int) -> [String] {
        text.wrapped(toColumns: max(20, self.text - column)).enumerated().map { number, line in
            let margin = number == 0 ? label : ""
            return margin + String(repeating: " ", count: max(0, column - margin.columns)) + line
        }
    }
}
