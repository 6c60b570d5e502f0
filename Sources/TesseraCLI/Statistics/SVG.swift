import Core

/// An SVG drawing, put together shape by shape. Lengths are in its own units, from the upper left corner.
struct SVG {
    enum Anchor: String {
        case start, middle, end
    }

    let width: Double
    let height: Double
    private var body: [String] = []

    /// The colours follow the reader's light or dark setting: `ink` for text and `line` for axes. Everything else has colours
    /// that are seen on both.
    private static let style = """
        <style>
        svg { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --line: #b8bec6; }
        @media (prefers-color-scheme: dark) { svg { --paper: #14171b; --ink: #e4e7eb; --line: #4a525c; } }
        text { fill: var(--ink); font: 11px system-ui, sans-serif; }
        .title { font-size: 15px; font-weight: 600; } .small { font-size: 10px; } .paper { fill: var(--paper); }
        .axis { stroke: var(--line); fill: none; stroke-width: 1; }
        </style>
        """

    init(width: Double, height: Double) {
        self.width = width
        self.height = height
        rectangle(x: 0, y: 0, width: width, height: height, style: "class=\"paper\"")
    }

    /// - Parameter title: what a screen reader says of the drawing.
    func document(title: String) -> String {
        let size = "\(Self.number(width)) \(Self.number(height))"
        return """
            <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(size)" role="img" aria-label="\(Self.escaped(title))">
            <title>\(Self.escaped(title))</title>
            \(Self.style)
            \(body.joined(separator: "\n"))
            </svg>

            """
    }

    mutating func text(_ text: String, x: Double, y: Double, anchor: Anchor = .start, style: String = "") {
        body.append(
            "<text x=\"\(Self.number(x))\" y=\"\(Self.number(y))\" text-anchor=\"\(anchor.rawValue)\" \(style)>"
                + "\(Self.escaped(text))</text>")
    }

    mutating func rectangle(x: Double, y: Double, width: Double, height: Double, style: String) {
        body.append(
            "<rect x=\"\(Self.number(x))\" y=\"\(Self.number(y))\" width=\"\(Self.number(width))\" "
                + "height=\"\(Self.number(height))\" \(style)/>")
    }

    mutating func line(_ points: [(x: Double, y: Double)], style: String) {
        let points = points.map { "\(Self.number($0.x)),\(Self.number($0.y))" }.joined(separator: " ")
        body.append("<polyline points=\"\(points)\" \(style)/>")
    }

    mutating func dot(x: Double, y: Double, style: String) {
        body.append("<circle cx=\"\(Self.number(x))\" cy=\"\(Self.number(y))\" r=\"2\" \(style)/>")
    }

    private static func number(_ value: Double) -> String { Quantity.decimal(value, places: 1) }

    private static func escaped(_ text: String) -> String {
        text.printable.map { character in
            switch character {
            case "&": "&amp;"
            case "<": "&lt;"
            case ">": "&gt;"
            case "\"": "&quot;"
            default: String(character)
            }
        }.joined()
    }
}
