import TesseraCLI

@main
struct Main {
    static func main() async { await TesseraCommand.run() }
}
