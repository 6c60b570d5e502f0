import Core
import Testing

@Suite struct QuantityTests {
    @Test(arguments: [
        (0.0073374333328819275, "0.00734"), (12.345, "12.3"), (1234.5, "1235"), (0, "0"), (-0.25, "-0.250"), (9.996, "10.00"),
        (4.2e-9, "4.20e-09"), (9.999e-9, "1.00e-08"), (-1e30, "-1.00e+30"), (.infinity, "inf"), (.nan, "nan"),
        (.leastNonzeroMagnitude, "4.94e-324"),
    ])
    func numbersAreRoundedForPeople(value: Double, text: String) { #expect(Quantity.significant(value) == text) }

    @Test(arguments: [
        (1e308, "1.00e+308", "1.00e+308 s"), (-1e308, "-1.00e+308", "-1.00e+308 s"), (.infinity, "inf", "inf s"),
        (.nan, "nan", "nan s"), (1e18, "1.00e+18", "1.00e+18 s"), (1e-308, "0.00", "0.00 s"),
    ])
    func everyNumberHasAText(value: Double, decimal: String, seconds: String) {
        #expect(Quantity.decimal(value, places: 2) == decimal && Quantity.seconds(value) == seconds)
        #expect(!Quantity.significant(value).isEmpty && !Quantity.rate(1 << 40, value).isEmpty)
    }
}
