"""Nouns of everyday objects that no scene contains, for absent goals. Our own list, in random order.

Every fourth word is held out of training. Objects that scenes contain as surroundings (table, shelf, wall,
floor, book, sofa, ...) are not listed.
"""

from __future__ import annotations

_NOUNS = """
troll jug bell lighthouse ivy fang fork veranda cocoon silk microscope builder carp beach cocktail-stick
bluebell bronze cheese-board notebook playground vulture boot conditioner muffin meteor grasshopper buffalo
straw-hat hut iron heater bishop pearl kennel owl lute amplifier leash backpack briefcase football leech
turkey armband hospital fishing-rod mane wheelchair trunk uniform mountain candlewax lens bacon woodpecker
holdall firework garage hill television bass pin goblet gem match pump teddy-bear marble dictionary mitten
cow recipe bow tortoise corridor hound geranium silverware toe carbon mop lentil trombone macaroon wax wok
overcoat placemat hoof fin snowboard thread broccoli pheasant purse parachute violin elephant eel conductor
funnel rain puma thermos cotton stew soldier contract cyclist porcelain aluminium barn tuba cleaner olive
orchid palette cherry discus pasta steering-wheel star frisbee eyelash brass syrup eggtimer forest hyena
motor egg-cup atlas sewing-machine monster musician scarf chin shoe string revolver dolphin jaguar toddler
oyster stadium mummy window crane flowerpot birdbath mansion barley excavator motorcycle exhaust treadmill
dog furnace fountain bulldozer strawberry buoy suitcase woman rod saucer lasagne laser swing volcano mussel
charcoal rat pond sandwich rose beetle tablecloth wombat lemonade anteater mushroom locust hair vodka bridge
seal pendant boy skewer daisy soup dishwasher goldfish boiler recorder tire alarm-clock pelican emu windmill
laptop plasterboard whistle sink taco saw cage nose maracas dentist crayon nest cliff igloo nettle cardboard
mule cart palm shed clipboard tank oar coconut package cement sapphire stable baseball sage root cobra
parking-meter sandal clog porpoise jelly reins bolt locomotive birch alligator hare vineyard apple gallery
thistle forehead diamond sleigh cook bison liver magpie cheetah platform wetsuit mattress transistor wool
bowtie protractor moped shop synagogue tights wolf glass cardigan motorbike hotdog bugle harvester python
bike goose poodle bracelet parsnip saxophone beret canvas bedroom coffin actor tambourine oil stethoscope
orchard spear necklace plug ski raincoat scooter skyscraper swallow robe flour chopping-block truck moccasin
juice magnifier sheet sardine eagle bomb newt cigar fridge traffic-light mist tie shoulder pistachio falcon
blind shuttlecock mint whip tap alien elf flute coriander staircase monk bamboo footstool hovercraft shotgun
resin airbag gramophone elevator banner candlestick razor jumper driver hairdresser oat rowboat pilot
mine-shaft turnip sundial hunter princess skirt bandage dress croissant head penguin cucumber glider
aquarium-fish cap knight salt-cellar screenplay hotel station aeroplane impala dove hat oregano duke wagon
mole valve oasis shore scissors torch futon trumpet caravan chapel cafe seed grater airport worm hamper
tomato signpost mascara arrow raspberry jam nun triangle pitcher gorilla oven poplar lasso visa fillet gecko
vice satchel engineer plane tanker sandpit farm ferry baking-tray grass yacht asparagus journalist cabin
step bassoon ghost jar washer juicer lorry frying-pan piston teaspoon kettle blouse sloth canyon vampire
shuttle rake cheque writer dumpling broom wren envelope stick clay ash weasel helicopter thermostat lettuce
tea-cosy boomerang racquet face eyepatch firefighter parrot daffodil bullet painting doll zip
air-conditioner boulder harbour statue dandelion marker apricot heel lion button chameleon fork-lift grocer
letterbox quince ticket park acorn monocle cat chisel mandolin island binoculars armour library cutlet
courgette kerb helium rocket risotto mixer beard post pinecone script flag fog mosque noodle mirror earring
maple climbing-frame file quarry shark elm iguana racecourse leek pear bed curry runner corkscrew
vacuum-cleaner queen-bee tricycle cable parasol beanbag horse cashew date onion butter-knife wire sand
stream boar fireplace hearing-aid peeler scone bear concrete soap meadow ostrich cloth mast bouquet antelope
dryer butcher lamb tailor cinema wildebeest quail panther grapefruit sock dune opal hockey-stick domino
giraffe pizza tennis-racket trophy dragon barbecue poppy wave knife cobweb tent capacitor rye ice-skate
lounge goalkeeper beehive horseshoe deer comet palace garland teapot dam desert wind jackal metronome
tea-towel cowboy poster bill museum teenager sculpture oboe ink crisps pier basketball saddle mermaid pawn
chopstick albatross meatball dragonfly pyjamas crow marmalade lace barbell peach student cane windscreen
radiator rudder pager tuna bottle-opener mango pub painter policeman engine dinosaur ginger spatula zoo
dashboard freezer marshmallow hearth seahorse ketchup rucksack deodorant bus herring school stone vinegar
jewel winch treacle cake bat hinge gatepost wrench power-station petrol-pump margarine sieve beam moustache
sledge rosemary stopwatch dart pipe-cleaner caviar hurricane temple cricket valley flower pretzel baguette
lynx viola currant cello laundry frog xylophone coat pagoda queen surfboard plaster fan rugby-ball crossbow
terrier cathedral softball paw tub cannon avocado drummer puppy yo-yo skateboard kayak scorpion ferris-wheel
gate bread-knife panda lychee lipstick quiche poet harmonica petri-dish cashbox king cola cord bicycle nail
earphones moth rainbow honeycomb buckle headlight garlic-press lift-shaft battery tyre piano hairdryer
omelette tepee sun salt camel whale rice dustpan wasp paddle spaceship tangelo slug easel sword pudding mud
binder rope mechanic stove gherkin towel newspaper wrist raven waitress mouth scalpel rhinoceros nightingale
moss toilet combine washing-machine tail sail porridge chimney pigeon kitten shampoo lawyer alpaca iceberg
zinc bone electrician ankle padlock blazer shorts snorkel scrubber pike goblin pickle dancer shield
drumstick stork resistor cyclone rooster calculator smartphone swamp champagne wine wristwatch nougat church
chainsaw pole guillotine trampoline monitor kidney reservoir porcupine barman gearbox blackberry melon
coffee net chestnut taxi pottery rasp fire-engine otter boat belt goat carpenter encyclopedia umbrella rock
plum airship oak rubber-band hippopotamus fur dagger shortbread scientist priest screwdriver crown generator
typewriter almanac trousers car-park leaf bar harpsichord peanut stirrup basement stapler map skunk
barometer catapult gas butter doctor toothbrush pupil supermarket bungalow cable-tie projector
ribbon-rosette hostel cockpit porch donkey straw cheese athlete bagel magnolia stretcher fly attic hourglass
sextant professor baboon puppet bathrobe sensor mayonnaise raft thermometer plough bathtub cricket-bat
sausage fudge vase monorail theatre paint villa brownie doughnut tulip witch shower bagpipes falafel
roundabout chipmunk lawn-chair duvet heart humidifier waterwheel canoe starling bull cellar macaroni
paintbrush suit lark varnish balloon thunder steel farmer trout cod syringe well quilt dishcloth helmet
barber icecream casserole grill anchor lampshade calendar anvil bridle yoghurt celery jeans escalator tooth
computer subway mandarin tick bracket motorway ferret eye javelin ambulance tornado post-office coin curtain
van unicorn cradle antenna opener finger torpedo caterpillar sauce walrus lightning weed slipper wineglass
beer cheek glue boxer pulley novel stocking deckchair walkingstick cymbal banister brandy hymnbook braces
cabbage bean fairy fanfare compass duster pancake waistcoat slate windowsill coach pomegranate dustbin
abacus cream spinning-top rocking-chair finch partridge ocean flannel shell cactus canal bush scaffold
platinum rollerskate baker-woman diesel bunk letter postcard grenade thrush pliers velvet fruit-basket
street neck handkerchief lane secateurs liquorice lung kiln sailboat gull fence ladder skull cigarette
dumbbell pipeline brooch castle elk spinach coal bee loudspeaker badger wardrobe hummus snake tuxedo magnet
fig puck popcorn chandelier sketch soil sorbet judge aquarium chest telescope magazine thimble lever feather
telephone prism grape forge fern tape-measure garden elbow hail pony coaster thyme chutney tongue lighter
koala strudel pincers honey burner shrimp alphabet referee marsh scale belly gong spider lizard singer basil
dust blood tram tissue custard cufflink clown ninja hallway chimpanzee carnival toad chain chalk beaker pig
menu rivet safety-pin jack aubergine birdhouse brush gauge factory blueberry trainer reindeer mouse
cockroach ravioli inkwell plastic veil pendulum cookie clasp hibiscus viper stereo turban walnut headphones
waiter spoon satellite university maize peg lunchbox pestle muesli shrub ant dartboard ribbon carafe
toothpick rook footballer actress bank toaster tart sulphur paraffin axe zombie hanger jasmine tractor
grandfather-clock hawk charger antler cauliflower submarine pedestrian pirate seesaw gravel cocoa gazelle
pineapple unicycle turbine swimmer fisherman sunglasses runway radish pepper-mill angel man chop bark snail
flashlight oatmeal certificate astronaut skin claw greenhouse teacher heirloom hosepipe armadillo sprinkler
foot planet hay funfair colander lotion llama pepper test-tube tofu starfish mustard muscle lily tobacco
hyacinth circuit wheel samosa sweater tusk log spanner sponge tunnel child wheelbarrow pen slide lollipop
wallet yarn clarinet parsley leopard ray sailor microwave moose chef knee ham storm jigsaw vacuum trowel
handbag butterfly warehouse socket robin stomach sparrow swift cask mine goggles mercury kite accordion
lightbulb field doorbell shirt wing snow lobster kiwi parcel mongoose banjo tea denim petrol cuckoo horn
carnation chilli beech waterfall eraser pea barn-owl crutch egg urn squirrel nurse shears comb devil baby
gerbil rolling-pin uranium headband tiara printer switch spade crab monkey branch granola pencil lavender
dill whisk rabbit clamp propeller toffee lead organ cranberry kitchen microphone kebab sugar volleyball
keyboard lamppost sunflower playing-card guitar paperclip girl hydrogen twig rifle pebble amethyst sea
crowbar sushi truffle hammock garlic pie gooseberry ruler lawnmower waffle banana sheep lake biscuit
watermelon plumber river prince giant pipette bumper crumpet jet platypus staple crucible radio lip carriage
clock medal pavement hairbrush glacier peony hornet pillow thumb pumpkin cottage spectacles oxygen circus
hamster mortar bible clover licence needle cot car molasses steak chickpea salad chessboard drawer jacket
pistol balcony strainer beetroot watch mosquito swan paella foghorn jungle shovel fiddle bakery meringue
railcar skeleton brick beak comic pharmacy hen tower cloud stamp brain crossing hedgehog hook toothpaste hip
burrito rhubarb glove joker clothesline lawn sneaker potato journal drill burger napkin banknote handcuffs
leg ship caramel paper folder puzzle ladle postman kangaroo papaya flea cave diary squid crystal
walkie-talkie bathroom ox almond screw linen leather moon road apron meerkat lance ashtray fox bellows
crocodile turtle peacock person cushion hood trough perfume hedge ladybird heron blender jellyfish ukulele
wheat shutter adult sharpener skipping-rope hazelnut iron-board blanket gardener clinic whisky monastery
latch artichoke harp loom dice train wizard doorknob stair tiger receipt dinghy hoe guitarist copper
cookie-cutter dwarf drone airplane acrobat chicken checkpoint octopus spaghetti spaniel cider bonnet collar
magician cuckoo-clock golf-club microchip ear watering-can anchovy zebra scanner candle restaurant locket
flipper passport librarian carrot coffee-maker beaver surgeon foam parchment badge raccoon sweet
"""
_ADJECTIVES = """
wounded samurai soft bony translucent cottony seeded petrified half-full poisonous diced tragic matured
boiled private skinny stormy rainy whipped tropical marbled rocky paper-thin swedish springlike carved
jagged brave cruel sick thirsty filled forward russian burnt poetic freezing digital mashed spongy greasy
stupid bulletproof global scientific folded alpine smiling starry tartan liquid alive bald serious soaked
blond unloaded curly nuclear nocturnal clever victorian portable sealed heavy octagonal dotted homemade
antique stale autumnal extinct sorted biological weekly lazy crispy electrical haunted quiet waxen flexible
hexagonal lukewarm wrapped popular broken papery quick crunchy rented spicy chopped dusty grilled dressed
cold rough military sour australian slippery singing sad upward scottish rechargeable gentle musical special
proud varnished imaginary mythical fictional woven peaceful stony mexican oily grooved free cooked shaky
loaded arabic knitted helical crazy italian yearly crying reusable chilly scared gothic speedy hairy mouldy
swampy flying roman cursed thorny dented damp buttered slow illegal icy legendary custom triangular barefoot
chinese feathery sudden balanced unripe blended ripped quilted packed american piled zigzag embroidered dry
busy tender foreign wise dead evil frosted sugared fat secret german automatic spanish domestic japanese
fermented barbed magical vintage wrinkled honeyed windy rubbery torn modern hot public fossilised physical
caramelised crooked grated brazilian dirty enchanted glassy humid bent greek disposable bumpy foolish opaque
ceramic armed sliced muscular iced concave funny unique swimming running indian epic inflatable toxic locked
mathematical french medieval happy local electric living leathery electronic rare civil unlucky bearded
juicy stuffed political loud manual historical holy toasted overflowing foldable sitting cracked ancient
silent royal british melted wintry cool endangered peeled jumping chubby velvety laughing latin downward
geographical ridged magnetic baked roasted leafy engraved sluggish valuable stolen plaid cheap dutch tough
borrowed steady salted romantic arctic scattered sleepy waterproof brittle persian steamed naked wireless
masked weightless deluxe chewy rusty dramatic smoked unlocked woolly luxurious crumpled wild pickled foggy
boiling violent pregnant welsh prickly international celtic eternal glazed religious marshy sleeping
original braided transparent famous egyptian analogue fragile explosive spiral kind-hearted warm legal fast
oval delicious decorated weird cloudy national aged plastic-coated expensive baroque irish mossy noble plump
tired serrated official temporary spotted angry rural snowbound handmade ornate stretchy heroic moist slim
swiss strange summery silky lost grassy daily noisy african backward dried shy frozen convex injured lonely
furry lucky personal viking frosty blunt healthy sunny fresh whistling permanent nordic scratched young ripe
raw hebrew artistic tame elastic coastal priceless urban pointed bitter twisted hungry woolen flammable
recyclable genuine chemical naval soundproof dancing slimy monthly sacred wobbly medical stacked canadian
seasonal worthless fireproof wet factory-made mechanical checkered tasty sticky solar mixed edible robotic
copied charred rotten spiky sweetened lightweight muddy minced fluffy sandy sturdy deaf fried floral organic
scorched rapid turkish preserved
"""


def _split(words: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Words to train on, and every fourth, which is held out."""
    listed = words.split()
    return tuple(w for i, w in enumerate(listed) if i % 4 != 3), tuple(listed[3::4])


NOUNS, HELD_OUT_NOUNS = _split(_NOUNS)
ADJECTIVES, HELD_OUT_ADJECTIVES = _split(_ADJECTIVES)
