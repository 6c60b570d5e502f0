import Recipes
import Testing

/// What PyYAML's safe loader makes of plain scalars; every row was tried with PyYAML 6.0.
@Suite struct ScalarTests {
    @Test(arguments: [
        ("", ScalarValue.null), ("~", .null), ("null", .null), ("NULL", .null), ("nUll", .string("nUll")),
        ("yes", .flag(true)), ("On", .flag(true)), ("OFF", .flag(false)), ("no", .flag(false)), ("True", .flag(true)),
        ("y", .string("y")),
        ("tRue", .string("tRue")),
        ("0", .integer(0)), ("-12", .integer(-12)), ("+7", .integer(7)), ("1_000", .integer(1000)), ("0x1F", .integer(31)),
        ("0b101", .integer(5)), ("017", .integer(15)), ("08", .string("08")), ("0o17", .string("0o17")), ("1:30", .integer(90)),
        ("-1:30", .integer(-90)), ("1:60", .string("1:60")),
        ("1.5", .number(1.5)), (".5", .number(0.5)), ("-.5", .string("-.5")), ("1.", .number(1)), ("1.5e+3", .number(1500)),
        ("1.5e-3", .number(0.0015)),
        ("1e-5", .string("1e-5")), ("1e5", .string("1e5")), ("1.5e3", .string("1.5e3")), (".inf", .number(.infinity)),
        ("-.INF", .number(-.infinity)), ("inf", .string("inf")), ("1_0.5", .number(10.5)), ("1:30.5", .number(90.5)),
        ("a", .string("a")), ("1.2.3", .string("1.2.3")), ("-", .string("-")), ("0x", .string("0x")), ("１", .string("１")),
    ])
    func readsAsPyYAMLDoes(text: String, value: ScalarValue) { #expect(ScalarValue(plain: text) == value) }

    @Test func notANumber() {
        guard case .number(let value) = ScalarValue(plain: ".nan") else {
            Issue.record(".nan is a number")
            return
        }
        #expect(value.isNaN)
    }

    @Test(arguments: [
        (ScalarValue.flag(true), Optional(1.0)), (.integer(3), 3), (.number(0.5), 0.5), (.string("1e-5"), 1e-5),
        (.string("-.5"), -0.5), (.string("x"), nil), (.null, nil),
    ])
    func countsAsANumber(value: ScalarValue, number: Double?) { #expect(value.asDouble == number) }

    @Test(arguments: [
        (ScalarValue.flag(false), Optional(false)), (.integer(1), true), (.number(0), false), (.integer(2), nil),
        (.string("yes"), true), (.null, nil),
    ])
    func countsAsAFlag(value: ScalarValue, flag: Bool?) { #expect(value.asBool == flag) }
}
