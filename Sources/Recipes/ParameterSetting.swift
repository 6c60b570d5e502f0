import Core

/// The setting of one parameter in a recipe.
package enum ParameterSetting: Sendable, Hashable {
    /// One value, or a gradient over the layers.
    case values(Values)
    /// The first condition whose filter matches applies.
    case conditions([Condition])

    package enum Values: Sendable, Hashable {
        case scalar(ScalarValue)
        /// Values evenly spaced over the layers, with linear interpolation.
        case gradient([ScalarValue])
    }

    package struct Condition: Sendable, Hashable {
        /// A part of the tensor's name, in which `*` stands for anything; `nil` matches every tensor.
        package let filter: String?
        package let values: Values
        /// The line in the recipe.
        package let line: Int

        package init(filter: String?, values: Values, line: Int) {
            self.filter = filter
            self.values = values
            self.line = line
        }

        package func fits(_ tensor: String) -> Bool {
            guard let filter else { return true }
            guard filter.utf8.contains(UInt8(ascii: "*")) else { return tensor.holds(filter) }
            var rest = Array(tensor.utf8)[...]
            for part in filter.utf8.split(separator: UInt8(ascii: "*")) {
                guard let place = rest.firstRange(of: Array(part)) else { return false }
                rest = rest[place.upperBound...]
            }
            return true
        }
    }

    /// The filters with their values; empty if there are no filters.
    package var conditions: [Condition] { if case .conditions(let conditions) = self { conditions } else { [] } }

    /// Every value as written, whatever it applies to.
    package var scalars: [ScalarValue] {
        switch self {
        case .values(let values): values.scalars
        case .conditions(let conditions): conditions.flatMap(\.values.scalars)
        }
    }

    /// The value for one tensor; `nil` if no filter matches or the gradient is empty, in which case the next scope applies.
    ///
    /// - Parameter position: the position of the tensor's layer in its stack, 0...1.
    package func value(at position: Double, tensor: String) -> ScalarValue? {
        switch self {
        case .values(let values): values.value(at: position)
        case .conditions(let conditions): conditions.first { $0.fits(tensor) }?.values.value(at: position)
        }
    }
}

extension ParameterSetting.Values {
    fileprivate var scalars: [ScalarValue] {
        switch self {
        case .scalar(let value): [value]
        case .gradient(let values): values
        }
    }

    fileprivate func value(at position: Double) -> ScalarValue? {
        switch self {
        case .scalar(let value): return value
        case .gradient(let values):
            guard let last = values.indices.last else { return nil }
            let place = position * Double(last)
            let index = min(last, Int(place)), next = min(last, index + 1), share = place - Double(index)
            // Only numbers can be interpolated; otherwise the preceding element applies.
            guard values.allSatisfy(\.isNumeric), let from = values[index].asDouble, let to = values[next].asDouble else {
                return values[index]
            }
            return .number((1 - share) * from + share * to)
        }
    }
}

extension ScalarValue {
    fileprivate var isNumeric: Bool {
        switch self {
        case .integer, .number: true
        case .string: asDouble != nil
        case .null, .flag: false
        }
    }
}

/// The parameters set at one place of a recipe.
package struct ParameterScope: Sendable, Equatable {
    package let settings: [String: Located<ParameterSetting>]
    /// Parameters that are set there to what cannot be read.
    package let unread: Set<String>

    package init(_ settings: [String: Located<ParameterSetting>] = [:], unread: Set<String> = []) {
        self.settings = settings
        self.unread = unread
    }

    package func value(_ name: String, at position: Double, tensor: String) -> Located<ScalarValue>? {
        guard let setting = settings[name], let value = setting.value.value(at: position, tensor: tensor) else { return nil }
        return Located(value, line: setting.line)
    }
}
